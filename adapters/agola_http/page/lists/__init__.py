"""The lists of runs and groups, and the history that the last runs tell."""
