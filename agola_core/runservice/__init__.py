"""The run service: runs, their tasks, their logs, archives and caches.

Stands on the datamanager and the readdb. Executors import `types` and `protocol` alone.
"""
