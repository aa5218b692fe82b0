"""Real S3 servers, in pytest and outside of it (from `agola_pytest.servers`)."""

from agola_pytest.servers.s3 import S3MissingError, S3Program, S3Server, S3StartError, start_s3

__all__ = ["S3MissingError", "S3Program", "S3Server", "S3StartError", "start_s3"]
