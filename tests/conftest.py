"""What holds for all tests."""

from hypothesis import settings

settings.register_profile(
    "agola_core", print_blob=True, deadline=None
)  # a failure prints what replays it; no example is late
settings.load_profile("agola_core")
