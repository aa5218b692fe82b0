"""Both sides of Agola's executor protocol over HTTP: an executor's own server, and the clients of each side."""
