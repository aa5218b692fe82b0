"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("agola_core", print_blob=True)  # a failure prints what replays it
settings.load_profile("agola_core")
