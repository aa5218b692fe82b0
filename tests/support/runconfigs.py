"""What a configuration becomes here, in the form in which the facts about Agola 0.2 are kept.

A fact says what Agola 0.2.0's own parser and conversion made of a document: it `accepts` it and makes these runs and
tasks, `refuses` it and says `why`, or `crashes`. What is empty is left out, and of a clone step there is but the name,
since every service has its own script. Where this project differs on purpose, `difference` says why, and `here` what
it makes in the place of Agola's runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from agola_core.errors import ConfigError
from agola_core.runconfig import Config, Finding, RunContext, load_config, parse_config, run_tasks
from agola_core.runconfig.convert import is_wanted
from agola_core.runservice.model.graph import with_levels

DATA = Path(__file__).parents[1] / "data/configs"
_CLONE = "Clone repository and checkout code"
_UNNAMED = {
    # Agola leaves the names of these steps empty; here people see what they do.
    "save_to_workspace": "save to workspace",
    "restore_workspace": "restore workspace",
    "save_cache": "save cache",
    "restore_cache": "restore cache",
}


def facts_about(name: str) -> list[dict[str, Any]]:
    """Return the facts of a file."""
    facts: list[dict[str, Any]] = json.loads((DATA / name).read_text())
    return facts


def read(fact: dict[str, Any], directory: Path, findings: list[Finding]) -> Config | ConfigError:
    """Return what is read from the document of a fact, or why it is refused."""
    try:
        if fact["format"] == "yaml":
            return parse_config(fact["document"].encode(), "config.yml", findings=findings)
        path = directory / "config.jsonnet"
        path.write_text(fact["document"])
        return load_config(path, findings)
    except ConfigError as error:
        return error


def runs_of(config: Config, fact: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs of a configuration, in the form of a fact."""
    context = RunContext(fact.get("branch", ""), fact.get("tag", ""), fact.get("ref", ""), fact.get("variables", {}))
    runs = []
    for run in sorted(config.runs, key=lambda run: run.name):
        names = iter([task.name for task in run.tasks])
        tasks = with_levels(run_tasks(config, run, context, lambda names=names: next(names)))  # type: ignore[misc]
        found = msgspec.json.decode(msgspec.json.encode(list(tasks.values())))
        made = [_task(task) for task in sorted(found, key=lambda task: task["name"])]
        runs.append({"name": run.name, "made": is_wanted(run, context), "tasks": made})
    return runs


def named(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return Agola's runs with the names that steps without one have here."""
    for run in runs:
        for task in run["tasks"]:
            for step in task.get("steps", []):
                if step["type"] in _UNNAMED:
                    step["name"] = step.get("name") or _UNNAMED[step["type"]]
    return runs


def _task(task: dict[str, Any]) -> dict[str, Any]:
    del task["id"]
    task["depends"] = {name: depend.get("conditions", []) for name, depend in task["depends"].items()}
    task["steps"] = [
        {"type": "run", "name": _CLONE}
        if step["name"] == _CLONE
        else {key: value for key, value in step.items() if (key, value) != ("timeout", 0.0)}  # an addition
        for step in task.get("steps", [])
    ]
    runtime = {"type": "", "arch": "", "containers": [], **task.get("runtime", {})}
    task["runtime"] = runtime
    return {key: value for key, value in task.items() if value}
