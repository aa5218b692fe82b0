"""The ASGI application of a route table and the server that runs it: bodies, streams, limits, errors, metrics.

It knows no route of its own; `routes`, `page` and `executor` bring them.
"""
