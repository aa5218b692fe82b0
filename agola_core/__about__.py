"""The version, from which packaging and the command line read it."""

__version__ = "0.1.0"
