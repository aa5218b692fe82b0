"""Logs of steps: their lines, times, folds and errors, while they grow and when they are stored."""
