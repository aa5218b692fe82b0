"""Real run services, in pytest and outside of it (from `agola_pytest.servers`)."""

from agola_pytest.servers.runservice import ServiceProcess, running_service

__all__ = ["ServiceProcess", "running_service"]
