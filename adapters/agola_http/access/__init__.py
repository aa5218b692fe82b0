"""Who may call what: the kinds of callers, their tokens, and the sessions of browsers that signed in.

Nothing here knows a route; `server` asks `control.Access` before it calls a handler.
"""
