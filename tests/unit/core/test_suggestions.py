"""Which known name an unknown one may mean."""

import pytest
from click.testing import CliRunner

from agola_cli.main import cli
from agola_core.encoding.suggestions import did_you_mean


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lst", "; did you mean 'list'?"),
        ("LIST", "; did you mean 'list'?"),
        ("limits", "; did you mean 'limit'?"),
        ("Buld", "; did you mean 'Build'?"),
        ("elsewhere", ""),
        ("", ""),
    ],
)
def test_a_name_close_to_a_known_one_is_told(name, expected):
    assert did_you_mean(name, ["limit", "list", "Build", "go"]) == expected
    assert did_you_mean(name, []) == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["runn"], "No such command 'runn'; did you mean 'run'?"),
        (["verfy"], "No such command 'verfy'; did you mean 'verify'?"),
        (["zzz"], "No such command 'zzz'\n"),
        (["run", "--verify-me-not"], "No such option"),
    ],
)
def test_a_command_close_to_an_unknown_one_is_told(arguments, expected):
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert expected in done.output
