"""Commands that run until they are stopped: `serve` and `executor`."""
