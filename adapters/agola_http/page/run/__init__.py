"""The page of a run: its tasks in folds, its graph, its timeline and its results."""
