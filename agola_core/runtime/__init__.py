"""Runtime support for the whole core: deadlines, clocks, failures, progress, and fault points for tests.

`threads` stands on `processes`, both on the modules beside them; nothing here knows a store or a run.
"""
