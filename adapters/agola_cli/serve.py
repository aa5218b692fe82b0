"""`agola-core serve`: the run service and a host executor behind HTTP, on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from agola_cli.options import coordinator_option, data_dir_option, default_data_dir, storage_option
from agola_core.errors import BadRequestError


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, envvar="AGOLA_HOST", help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=4000, show_default=True, envvar="AGOLA_PORT")
@data_dir_option
@storage_option
@coordinator_option
@click.option("--executor/--no-executor", "with_executor", default=True, help="Whether tasks are also run here.")
@click.option(
    "--executor-token", default="", envvar="AGOLA_EXECUTOR_LISTEN_TOKEN", help="What executors elsewhere ask for."
)
def serve_command(
    host: str,
    port: int,
    data_dir: Path | None,
    storage: str | None,
    coordinator: str | None,
    with_executor: bool,
    executor_token: str,
) -> None:
    """Serve runs over HTTP until SIGTERM or Ctrl-C. Without tokens it listens on loopback only."""
    try:
        from agola_http.server import ServeOptions, serve  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise BadRequestError("serve needs the extra http: pip install 'agola-core[http]'") from error
    serve(
        data_dir or default_data_dir(Path.cwd()),
        ServeOptions(host=host, port=port, with_executor=with_executor, executor_token=executor_token),
        storage=storage,
        coordinator=coordinator,
        on_start=lambda url: click.echo(f"serving on {url}"),
    )
