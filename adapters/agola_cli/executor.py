"""`agola-core executor`: runs tasks of a run service that is somewhere else."""

from __future__ import annotations

from pathlib import Path

import click

from agola_core.errors import BadRequestError, ConfigError
from agola_core.executor import Executor, ExecutorOptions
from agola_core.executor.drivers.host import HostDriver, Isolation
from agola_core.executor.taskrunner import TaskLimits


@click.command("executor")
@click.option("--url", required=True, envvar="AGOLA_URL", help="The run service, such as http://127.0.0.1:4000.")
@click.option("--token", default="", envvar="AGOLA_EXECUTOR_TOKEN", help="What the service asks executors for.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="AGOLA_EXECUTOR_DIRECTORY",
    help="Where its id and its tasks are kept; by default a directory of your home.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen for the service.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0, the default, for a free one.")
@click.option("--listen-url", default="", help="How the service reaches it, where that is not HOST:PORT.")
@click.option("--listen-token", default="", envvar="AGOLA_EXECUTOR_LISTEN_TOKEN", help="What the service must show.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label; repeatable.")
@click.option("--tasks", type=click.IntRange(0), default=2, show_default=True, help="How many at once; 0: no limit.")
@click.option("--max-log-bytes", type=click.IntRange(1), default=1 << 30, show_default=True)
@click.option("--stop-tasks", is_flag=True, help="At its end stop what runs; otherwise the next start goes on with it.")
@click.option(
    "--isolation",
    type=click.Choice([item.value for item in Isolation]),
    default="none",
    help="Keep steps from the machine.",
)
def executor_command(
    url: str,
    token: str,
    directory: Path | None,
    host: str,
    port: int,
    listen_url: str,
    listen_token: str,
    labels: tuple[str, ...],
    tasks: int,
    max_log_bytes: int,
    stop_tasks: bool,
    isolation: str,
) -> None:
    """Take tasks from a run service and run them here, until SIGTERM or Ctrl-C.

    \b
    agola-core executor --url http://127.0.0.1:4000
    agola-core executor --url https://ci.example.org --host 10.0.0.7 --port 4001 \\
        --token T --listen-token L --tasks 4
    """
    try:
        from agola_http.executor_server import ListenOptions, run_executor  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise BadRequestError("executor needs the extra http: pip install 'agola-core[http]'") from error
    run_executor(
        directory or Path.home() / ".local/share/agola-core/executor",
        url,
        HostDriver(isolation=Isolation(isolation)),
        service_token=token,
        listening=ListenOptions(host=host, port=port, url=listen_url, token=listen_token),
        options=ExecutorOptions(
            labels=_pairs(labels, "--label"),
            active_tasks_limit=tasks,
            limits=TaskLimits(max_log_bytes=max_log_bytes),
        ),
        stop_tasks=stop_tasks,
        on_start=_started,
    )


def _started(executor: Executor, url: str) -> None:
    click.echo(f"executor {executor.id} listens on {url}")


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ConfigError(f"{option} {text!r}: expected NAME=VALUE")
        pairs[name] = value
    return pairs
