"""Crashes at named fault points, in pytest and outside of it (from `agola_pytest.faults`)."""

from agola_pytest.faults.crash import Crash, crash_at, fault_points

__all__ = ["Crash", "crash_at", "fault_points"]
