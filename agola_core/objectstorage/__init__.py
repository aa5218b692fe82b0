"""Object storage: whole objects under text keys on posix, posixflat or s3.

Imports errors and fault points; the datamanager and the runservice stand on it.
"""
