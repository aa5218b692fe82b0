"""The command line of agola_core, `agola-core`: a thin adapter on click over the library and the HTTP client."""
