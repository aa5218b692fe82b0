"""Connections of the server: uvicorn's with time limits, request bodies, streamed responses, and their limits.

Knows no endpoint and no route.
"""
