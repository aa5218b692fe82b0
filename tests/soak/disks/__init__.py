"""Disks that lose power, fail or are full."""
