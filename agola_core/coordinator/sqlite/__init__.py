"""The embedded coordinator: a SQLite database that several processes of one machine share."""
