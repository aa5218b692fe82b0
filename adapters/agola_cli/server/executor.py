"""`agola-core executor`: takes tasks from a run service over HTTP and runs them on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from agola_cli.connect.local_services import find_token
from agola_cli.options.common import tasks_option
from agola_cli.options.directories import DirectoryType
from agola_cli.options.types import DURATION, Decimal, Whole
from agola_core.errors import BadRequestError, ConfigError
from agola_core.executor import Executor, ExecutorOptions
from agola_core.executor.drivers.container import EngineOptions
from agola_core.executor.drivers.factory import DRIVERS, make_driver
from agola_core.executor.drivers.host import Isolation
from agola_core.executor.tasks.runner import TaskLimits


@click.command("executor")
@click.option("--url", required=True, envvar="AGOLA_URL", help="The run service, such as http://127.0.0.1:4000.")
@click.option(
    "--token", default="", envvar="AGOLA_EXECUTOR_TOKEN", help="The token that the service asks executors for."
)
@click.option(
    "--directory",
    type=DirectoryType(),
    envvar="AGOLA_EXECUTOR_DIRECTORY",
    help="The directory of its id and its tasks, such as /var/lib/agola-executor; by default one in your home.",
)
@click.option("--driver", type=click.Choice(DRIVERS), default="host", show_default=True, help="What runs the steps.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on for the service.")
@click.option("--port", type=Whole(0, 65535), default=0, help="The port; 0, the default, for a free one.")
@click.option(
    "--listen-url",
    default="",
    help="The URL by which the service reaches it if that is not HOST:PORT, such as http://ci-7.example:4001.",
)
@click.option(
    "--listen-token",
    default="",
    envvar="AGOLA_EXECUTOR_LISTEN_TOKEN",
    help="The token that the service must show, such as openssl rand -hex 16 prints; the service is told it. By "
    "default a random one.",
)
@click.option("--no-listen-token", is_flag=True, help="Ask the service for no token: Agola's own shows none.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    help="A label that tasks may ask for, such as gpu=yes; repeatable.",
)
@tasks_option
@click.option(
    "--max-log-bytes",
    type=Whole(1),
    default=1 << 30,
    show_default=True,
    help="The size of a log, in bytes, at which its task fails.",
)
@click.option(
    "--service-patience",
    type=DURATION,
    default="1h",
    show_default=True,
    help="How long a step waits for a service that cannot be reached.",
)
@click.option("--stop-tasks", is_flag=True, help="Stop running tasks at exit; otherwise the next start continues them.")
@click.option(
    "--isolation",
    type=click.Choice([item.value for item in Isolation]),
    default="none",
    help="host: isolate steps from the machine.",
)
@click.option(
    "--socket",
    default="",
    envvar="DOCKER_HOST",
    help="container: the socket of the engine, such as unix:///run/docker.sock.",
)
@click.option("--allow-privileged", is_flag=True, help="container: allow privileged containers.")
@click.option(
    "--network",
    default="",
    help="container: the network, such as ci; the engine's own by default. With --isolation: 'host' for the machine's "
    "network, otherwise none.",
)
@click.option(
    "--pull",
    type=click.Choice(["always", "missing", "never"]),
    default="always",
    show_default=True,
    help="container: when images are pulled.",
)
@click.option(
    "--memory",
    default=0,
    type=Whole(0),
    help="container: memory of each, in bytes, such as 2000000000; 0 for no limit.",
)
@click.option(
    "--cpus", default=0.0, type=Decimal(0), help="container: processors of each, such as 1.5; 0 for no limit."
)
@click.option("--pids", default=0, type=Whole(0), help="container: processes in each, such as 500; 0 for no limit.")
@click.option("--runtime", default="", help="container: the OCI runtime, such as runsc; the engine's own by default.")
@click.option(
    "--ulimit",
    "ulimits",
    multiple=True,
    metavar="NAME=SOFT:HARD",
    help="container: a limit, such as nofile=1024:4096; repeatable.",
)
def executor_command(
    url: str,
    token: str,
    directory: Path | None,
    driver: str,
    host: str,
    port: int,
    listen_url: str,
    listen_token: str,
    no_listen_token: bool,
    labels: tuple[str, ...],
    tasks: int,
    max_log_bytes: int,
    service_patience: float,
    stop_tasks: bool,
    isolation: str,
    socket: str,
    allow_privileged: bool,
    network: str,
    pull: str,
    memory: int,
    cpus: float,
    pids: int,
    runtime: str,
    ulimits: tuple[str, ...],
) -> None:
    """Take tasks from a run service and run them here, until SIGTERM or Ctrl-C.

    \b
    agola-core executor --url http://127.0.0.1:4000
    agola-core executor --url https://ci.example.org --host 10.0.0.7 --port 4001 \\
        --token T --driver container --tasks 4
    """
    try:
        from agola_http.executor.process import ListenOptions, run_executor  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise BadRequestError("executor needs the extra http: pip install 'agola-core[http]'") from error
    if not token:
        url, token = find_token(url, "executor")
    chosen = make_driver(
        driver,
        isolation=Isolation(isolation),
        engine=EngineOptions(
            socket=socket,
            allow_privileged=allow_privileged,
            network=network,
            pull=pull,
            memory=memory,
            cpus=cpus,
            pids=pids,
            runtime=runtime,
            ulimits=_pairs(ulimits, "--ulimit"),
        ),
    )
    run_executor(
        directory or Path.home() / ".local/share/agola-core/executor",
        url,
        chosen,
        service_token=token,
        listening=ListenOptions(host=host, port=port, url=listen_url, token=listen_token, ask=not no_listen_token),
        options=ExecutorOptions(
            labels=_pairs(labels, "--label"),
            active_tasks_limit=tasks,
            limits=TaskLimits(max_log_bytes=max_log_bytes, service_patience=service_patience),
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
