"""Runs requests one after the other in this process, and follows each to its result."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from agola_cli.connect.caller import login_name
from agola_cli.options.variables import GivenValues
from agola_cli.runs.follow import ENDING_SECONDS, follow_run, stop_run
from agola_cli.runs.interruption import Interruption
from agola_cli.runs.launch.disk_check import DiskCheck
from agola_cli.runs.launch.selection import is_called
from agola_cli.runs.launch.submission import Submission
from agola_core.errors import NotFoundError
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import Run, RunResult, TaskStatus
from agola_core.source.tree import pack_tree
from agola_core.standalone import Standalone


class Session(msgspec.Struct, frozen=True):
    """Runs requests in this process.

    Attributes:
        standalone: Runs them.
        directory: Its data directory.
        interruption: Asked for by the user.
        option: What names the data directory in a command, with a space in front.
        given: What options give to the tasks.
        artifacts: Where what they save is unpacked; None for nowhere.
        shell_tasks: The names of the tasks whose failure opens a shell.
        fail_fast: Whether the first failure stops a run.
        timestamps: Whether each line of a log shows when it was written.
        as_json: Whether standard output is kept for JSON.
    """

    standalone: Standalone
    directory: Path
    interruption: Interruption
    option: str
    given: GivenValues
    artifacts: Path | None
    shell_tasks: tuple[str, ...]
    fail_fast: bool
    timestamps: bool
    as_json: bool

    def requests(self, submission: Submission) -> list[RunCreateRequest]:
        """Pack a tree, and return the requests for its runs."""
        source = ""
        if submission.clones:
            tree = pack_tree(submission.tree, left_out=self.directory, include_repository=True)
            source = self.standalone.service.put_source(tree)
        return [
            submission.request(
                definition,
                source=source,
                group=f"/user/local/branch/{quote(submission.checkout.branch or 'none', safe='')}",
                cache_group=f"local-{self.directory.name}",
                given=self.given,
                user=login_name(),
            )
            for definition in submission.runs
        ]

    def run(self, requests: Iterable[RunCreateRequest], halt: Callable[[], str] = lambda: "") -> list[Run]:
        """Run requests until one is interrupted; return the runs.

        Args:
            requests: The requests.
            halt: Returns the reason to stop running tasks and start no others; "" to continue.
        """
        service = self.standalone.service
        results: list[Run] = []
        for request in requests:
            if self.interruption.asked or halt():
                break
            run = follow_run(
                service,
                service.create_run(request),
                self.interruption,
                option=self.option,
                as_json=self.as_json,
                timestamps=self.timestamps,
                fail_fast=self.fail_fast,
                halt=halt,
                check=DiskCheck(self.directory, self.interruption),
            )
            results.append(run)
        service.wait_archived([run.id for run in results], ENDING_SECONDS)
        if self.artifacts is not None:
            from agola_cli.runs.artifacts import unpack_artifacts  # noqa: PLC0415 - few use it

            for run in results:
                unpack_artifacts(service, service.get_run(run.id), (), self.artifacts)
        if self.as_json:
            click.echo(msgspec.json.encode(results))
        return results

    def exit_code(self, results: list[Run]) -> int:
        """Return the exit code after runs."""
        if self.interruption.asked:
            return 130
        return 0 if all(run.result is RunResult.SUCCESS for run in results) else 1

    def end_leftovers(self) -> None:
        """Stop what a killed process left behind: this command's runs end with it."""
        service = self.standalone.service
        for run in service.active_runs():
            if not run.phase.is_finished:
                again = f"agola-core runs restart {run.id}{self.option}"
                click.echo(f"run {run.id} was left waiting or interrupted: it is stopped now; {again}", err=True)
                stop_run(service, run.id)

    def open_shells(self, results: list[Run]) -> None:
        """Open a shell for each of the chosen tasks that has failed, where its step ran.

        Raises:
            NotFoundError: No run has a task of that name.
        """
        bundles = [self.standalone.service.get_run(run.id) for run in results]
        for name in self.shell_tasks:
            found = [
                (bundle.run.tasks[task.id], task.name)
                for bundle in bundles
                for task in bundle.run_config.tasks.values()
                if is_called(task.name, name)
            ]
            if not found:
                raise NotFoundError(f"no shell: there is no task {name!r}")
            for task, title in found:
                if task.status is TaskStatus.FAILED:
                    self._open_shell(task.id, title)
                else:
                    click.echo(f"no shell: {title} did not fail", err=True)

    def _open_shell(self, task_id: str, name: str) -> None:
        step = self.standalone.failed_step(task_id)
        click.echo(f"a shell where step {step.number} of {name} failed, {step.working_dir}: `exit` ends it", err=True)
        if step.script:
            click.echo(f"the step's command is in {shlex.quote(step.script)}", err=True)
        previous = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the shell's; it gets the default again
        try:
            step.open_shell(self.standalone.driver, os.environ)
        finally:
            signal.signal(signal.SIGINT, previous)
