"""The ASGI application of a route table: endpoints, JSON, errors, metrics; `connections` is the server that runs it.

It knows no route of its own; `routes`, `page` and `executor` bring them.
"""
