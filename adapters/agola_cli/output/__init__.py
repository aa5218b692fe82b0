"""What commands print: tables, JSON, progress bars, and the live display of a run."""
