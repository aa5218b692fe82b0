"""Export and import of a whole store."""
