"""What many writers and readers saw at the same time, and whether one order explains it."""
