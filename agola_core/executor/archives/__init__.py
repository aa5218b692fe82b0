"""Archives of workspaces and caches: packed from files, and unpacked without trust."""
