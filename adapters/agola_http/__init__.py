"""The HTTP adapter of agola_core: Agola 0.2's run service interface, served by starlette."""
