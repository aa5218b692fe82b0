"""Every option of `run` and `runs` stands in an example of its command's help."""

import re

import click
import pytest

from agola_cli.main import cli

_CONTEXT = click.Context(cli)
_COMMANDS = {"run": cli.get_command(_CONTEXT, "run")} | {
    f"runs {name}": command for name, command in cli.get_command(_CONTEXT, "runs").commands.items()
}
_EVERYWHERE = {"--url", "--token-file", "--data-dir", "--storage", "--coordinator"}
"""They name the service or the store, in the same way in every command."""


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_option_has_an_example(name):
    command = _COMMANDS[name]
    examples = "\n".join(line for line in command.help.splitlines() if line.strip().startswith(f"agola-core {name}"))
    words = set(re.split(r"[\s=;]+", examples))
    options = [item for item in command.params if isinstance(item, click.Option)]
    missing = [item.opts for item in options if words.isdisjoint({*item.opts, *item.secondary_opts})]
    assert [opts for opts in missing if _EVERYWHERE.isdisjoint(opts)] == []
