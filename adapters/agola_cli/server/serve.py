"""`agola-core serve`: serves a run service and a host executor over HTTP from this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import click

from agola_cli.connect.local_services import announced
from agola_cli.connect.store import StoreOptions, store_options
from agola_cli.options.common import FILE, tasks_option
from agola_cli.options.directories import default_data_dir
from agola_cli.options.types import Whole
from agola_cli.output.progress_bar import Bar
from agola_cli.server.service_options import service_options
from agola_core.address import StoreAddress
from agola_core.errors import AgolaError, BadRequestError
from agola_core.executor import ExecutorOptions
from agola_core.executor.tasks.runner import TaskLimits
from agola_core.runservice.model.options import ServiceOptions

F = TypeVar("F", bound=Callable[..., Any])


def _tokens(kind: str) -> Callable[[F], F]:
    text = (
        f"File with tokens of {kind}s, one a line, such as {kind}.tokens. AGOLA_{kind.upper()}_TOKEN may hold another."
    )
    return click.option(f"--{kind}-tokens", type=FILE, envvar=f"AGOLA_{kind.upper()}_TOKENS", help=text)


def _limit(name: str, default: int, text: str) -> Callable[[F], F]:
    return click.option(f"--{name}", type=Whole(1), default=default, show_default=True, help=text)


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, envvar="AGOLA_HOST", help="The address to listen on.")
@click.option(
    "--port",
    type=Whole(0, 65535),
    default=4000,
    show_default=True,
    envvar="AGOLA_PORT",
    help="The port; 0 for a free one.",
)
@store_options
@_tokens("client")
@_tokens("executor")
@_tokens("admin")
@click.option(
    "--no-tokens",
    is_flag=True,
    help="Create no tokens if none are given: every program on this machine may then do what they would allow.",
)
@click.option("--trust-network", is_flag=True, help="Serve without tokens on an address that other hosts can reach.")
@click.option(
    "--tls-certificate", type=FILE, envvar="AGOLA_TLS_CERTIFICATE", help="PEM file of the certificate; needs --tls-key."
)
@click.option("--tls-key", type=FILE, envvar="AGOLA_TLS_KEY", help="PEM file of the certificate's private key.")
@click.option(
    "--tls-client-ca", type=FILE, help="PEM file of the authority whose certificates clients must show, such as ca.pem."
)
@click.option("--executor/--no-executor", "with_executor", default=True, help="Whether this process also runs tasks.")
@tasks_option
@_limit("max-log-bytes", 1 << 30, "The size of a log, in bytes, at which its task here fails.")
@click.option(
    "--executor-network",
    "executor_networks",
    multiple=True,
    help="A network in which executors may listen, such as 10.0.0.0/8; repeatable.",
)
@service_options
@click.option(
    "--access-log",
    metavar="FILE",
    help="File to which each request is logged as a line, such as access.log; - for standard error.",
)
@_limit("max-body-bytes", 16 * 1024**2, "The largest JSON body, in bytes.")
@_limit("max-upload-bytes", 16 * 1024**3, "The largest cache or source archive, in bytes.")
@_limit("max-connections", 2000, "The most connections at the same time.")
@_limit("max-streams", 512, "The most streams at the same time: logs, events, exports, uploads.")
@_limit("stall-seconds", 300, "The seconds after which a peer that neither reads nor writes is disconnected.")
def serve_command(
    store: StoreOptions,
    client_tokens: Path | None,
    executor_tokens: Path | None,
    admin_tokens: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    no_tokens: bool,
    trust_network: bool,
    executor_networks: tuple[str, ...],
    service: ServiceOptions,
    tasks: int,
    max_log_bytes: int,
    max_body_bytes: int,
    max_upload_bytes: int,
    max_connections: int,
    max_streams: int,
    stall_seconds: int,
    **given: Any,
) -> None:
    """Serve runs over HTTP until SIGTERM or Ctrl-C.

    Callers must show tokens. Those that are not given are made at the first start, in DATA-DIR/tokens, where commands
    of the same user find them.

    \b
    agola-core serve
    agola-core serve --retain /=90d --retain /project/ID=30d,100 --cache-expiry 14d
    agola-core serve --host 0.0.0.0 --client-tokens c.txt --executor-tokens e.txt --admin-tokens a.txt \\
        --tls-certificate cert.pem --tls-key key.pem
    """
    try:
        from agola_http.access.token_files import DIRECTORY, read_tokens, with_own  # noqa: PLC0415
        from agola_http.outbound.listen_policy import LOCAL_NETWORKS  # noqa: PLC0415
        from agola_http.serve import ServeOptions, serve  # noqa: PLC0415
        from agola_http.server.connections.limits import Limits  # noqa: PLC0415 - an extra
        from agola_http.server.connections.uvicorn_server import Tls  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise BadRequestError("serve needs the extra http: pip install 'agola-core[http]'") from error
    if (tls_certificate is None) != (tls_key is None) or (tls_client_ca is not None and tls_certificate is None):
        raise BadRequestError("TLS needs both --tls-certificate and --tls-key")
    tls = None
    if tls_certificate is not None and tls_key is not None:
        tls = Tls(certificate=tls_certificate, key=tls_key, client_authority=tls_client_ca)
    data_dir = store.data_dir or default_data_dir(Path.cwd())
    files = {"client": client_tokens, "executor": executor_tokens, "admin": admin_tokens}
    made = not no_tokens and not trust_network
    tokens = data_dir.absolute() / DIRECTORY
    is_new, has_started = not tokens.exists(), False
    if made:
        files = with_own(files, data_dir)
    options = ServeOptions(
        tokens=read_tokens(files),
        trust_network=trust_network,
        tls=tls,
        executor_networks=executor_networks or LOCAL_NETWORKS,
        service=service,
        executor=ExecutorOptions(active_tasks_limit=tasks, limits=TaskLimits(max_log_bytes=max_log_bytes)),
        limits=Limits(
            body_bytes=max_body_bytes,
            upload_bytes=max_upload_bytes,
            connections=max_connections,
            streams=max_streams,
            stall_seconds=stall_seconds,
        ),
        **given,
    )
    with ExitStack() as stack, Bar(lines=True) as bar:

        def started(url: str) -> None:
            nonlocal has_started
            has_started = True
            if made and tokens.is_dir():
                stack.enter_context(announced(url, tokens))
                click.echo(f"tokens are in {tokens}: commands of this user find them, others take --token-file")
                if (tokens / "client").exists():
                    click.echo(f"to sign in on the page: the token in {tokens / 'client'}")
            click.echo(f"serving on {url}")

        try:
            serve(StoreAddress(data_dir, store.storage, store.coordinator), options, on_start=started, progress=bar)
        except AgolaError:
            if is_new and not has_started:  # nobody has used what was made for this start
                shutil.rmtree(tokens, ignore_errors=True)
            raise
