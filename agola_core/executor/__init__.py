"""The executor: takes tasks from a run service, runs their steps through a driver, and serves their logs and archives.

Imports from the run service only `model`, since it may run on another machine.
"""

from agola_core.executor.executor import Executor, ExecutorOptions

__all__ = ["Executor", "ExecutorOptions"]
