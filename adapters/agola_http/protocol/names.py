"""Path prefix, media types and headers that the server and its clients share."""

PREFIX = "/api/v1alpha"
JSON = "application/json"
BINARY = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
TAR = "application/x-tar"
EVENT_STREAM = "text/event-stream"
FORM = "application/x-www-form-urlencoded"
NO_CACHE = {"Cache-Control": "no-cache"}

EXECUTOR_HEADER = "Agola-Executor-Token"
"""In it an executor shows its own token, beside the one that the service asks executors for."""
OFFSET_HEADER = "Agola-Offset"
"""Says from which byte on an answer goes; an executor that does not know offsets sends everything."""
