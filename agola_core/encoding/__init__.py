"""How values are decoded that were stored or given: records, compressed bytes, numbers; what unknown names may mean."""
