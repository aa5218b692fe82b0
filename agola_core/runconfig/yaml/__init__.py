"""YAML documents, read as Agola 0.2 reads them, with the line of each value."""
