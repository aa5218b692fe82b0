"""`agola-core completion`: prints the shell script that completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from agola_core.errors import BadRequestError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete agola-core's commands and options.

    \b
    agola-core completion bash >> ~/.bashrc
    agola-core completion zsh > "${fpath[1]}/_agola-core"
    agola-core completion fish > ~/.config/fish/completions/agola-core.fish
    """
    made = get_completion_class(shell)
    if made is None:
        raise BadRequestError(f"no completion for {shell}")
    completion = made(context.find_root().command, {}, "agola-core", "_AGOLA_CORE_COMPLETE")
    click.echo(completion.source())
