"""The coordinator on an embedded SQLite database, for the processes of one machine."""
