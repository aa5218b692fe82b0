"""Which store this is: opening, recovery, switching lineages, and the instances that have the store open."""
