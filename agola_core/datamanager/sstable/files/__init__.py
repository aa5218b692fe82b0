"""Data files (SSTables): their blocks, indexes and footers, how they are written, opened and cached."""
