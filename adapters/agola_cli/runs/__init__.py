"""Commands on runs: start one here, list, show, read logs, take artifacts, stop, restart, approve and delete."""
