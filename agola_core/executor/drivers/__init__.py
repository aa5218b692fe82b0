"""Drivers: where the processes of a task's steps run."""
