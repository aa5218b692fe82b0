"""pytest fixtures of agola_core; see `plugin`."""
