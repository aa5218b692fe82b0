"""Access control: the kinds of callers, their tokens, and the sessions of browsers that have signed in.

Nothing here knows a route; `server` asks `control.Access` before it calls a handler.
"""
