"""The datamanager: a log of events, committed through a coordinator, checkpointed to object storage.

Imports the coordinator and the object storage ports; the readdb, maintenance and the runservice stand on it.
"""
