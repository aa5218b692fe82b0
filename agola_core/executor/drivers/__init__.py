"""Drivers, which run the commands of steps: as processes of this machine, or in containers."""
