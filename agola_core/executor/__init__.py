"""The executor: takes tasks from a run service, runs their steps through a driver, and serves their logs and archives.

Imports from the run service only its shared `types` and `protocol`.
"""

from agola_core.executor.executor import Executor, ExecutorOptions

__all__ = ["Executor", "ExecutorOptions"]
