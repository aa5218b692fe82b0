"""Commands on a store: its objects, status and upkeep, maintenance mode, export and import."""
