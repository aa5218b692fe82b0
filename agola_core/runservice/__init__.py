"""The run service: runs with their tasks, logs, archives and caches.

Stands on the datamanager and the readdb. Executors and run configurations import `model` alone.
"""
