"""The store in a world of its own: in memory, on one thread, with a clock, failures and crashes that a seed decides.

`memory_coordinator` and `memory_storage` pass the contract suites of the real backends. `scheduler` runs the tasks of
several processes, one at a time, and hands over at every call of a backend and at every fault point; `threads` gives
the store's code locks, events, threads and a time that the scheduler knows. `truth` sees what was really committed
and checks everything that a process is told against it; `life` is what the processes do.
"""
