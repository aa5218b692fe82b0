"""Drivers: where a task's processes run. `host` and `container` implement `port`; `factory` makes them by name."""
