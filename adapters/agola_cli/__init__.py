"""The command line of agola_core: `agola-core`."""
