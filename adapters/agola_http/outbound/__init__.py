"""Outgoing HTTP calls: connections with deadlines and retries, and the addresses that may be called."""
