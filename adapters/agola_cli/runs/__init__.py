"""Commands on runs: start one here, list, show, read logs, stop, restart, approve and delete."""
