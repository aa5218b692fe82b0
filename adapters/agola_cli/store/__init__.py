"""Commands on a store: its status and maintenance, export and import."""
