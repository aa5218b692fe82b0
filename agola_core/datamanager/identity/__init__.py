"""The identity of a store: opening it, its lineages, its coordinator, and the instances that have it open."""
