"""How values are decoded from what was stored or given: records, compressed bytes, numbers in texts."""
