"""Run configurations: `.agola/config.yml` and the like are read, checked, and converted to the tasks of a run.

Imports from the run service only `model`.
"""

from agola_core.runconfig.convert import RunContext, run_tasks
from agola_core.runconfig.findings import Finding, FindingKind
from agola_core.runconfig.model import Config, RunDefinition
from agola_core.runconfig.parse import find_config, load_config, parse_config

__all__ = [
    "Config",
    "Finding",
    "FindingKind",
    "RunContext",
    "RunDefinition",
    "find_config",
    "load_config",
    "parse_config",
    "run_tasks",
]
