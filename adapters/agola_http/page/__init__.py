"""The web page: runs, a run's graph and logs, and the store, rendered on the server, with a little script.

It works without a network and, but for what is live, without script. Imports the service through `state`, as the other
areas do.
"""
