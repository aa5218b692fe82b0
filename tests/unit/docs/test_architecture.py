"""The picture and the tables of the architecture page are those of the code."""

import re
import tomllib

import pytest

from tests.support.pages import DOCS, ROOT
from tests.unit.docs.test_glossary import defines

PAGE = (DOCS / "architecture.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
DECISIONS = re.findall(r"^\| ([^|]+) \| (`agola_core/[^|]+|`adapters/[^|]+) \|(?: `(\w+)`)? \|$", PAGE, re.MULTILINE)


def section(title):
    return PAGE.split(f"\n{title}\n")[1].split("\n#")[0]


def layers(contract):
    return [set(re.findall(r"[\w.]+", layer)) for layer in CONTRACTS[contract]["layers"]]


def test_the_picture_has_the_layers_of_the_rule():
    (picture,) = re.findall(r"```\n(.*?)```", section("## The picture"), re.DOTALL)
    above, below = picture.split("agola_core/\n")
    drawn = [set(re.split(r"\s{2,}", line.strip())[0].split(" | ")) for line in below.splitlines()]
    assert drawn == [{name.removeprefix("agola_core.") for name in layer} for layer in layers("Layers of the core")]
    adapters = {path.parent.name for path in (ROOT / "adapters").glob("*/__init__.py")}
    assert adapters == set(re.split(r"\s{2,}", above.splitlines()[1].strip())[0].split(" | "))


@pytest.mark.parametrize(
    ("title", "contract"),
    [
        ("### `agola_core/datamanager/`", "Rooms of the datamanager"),
        ("### `agola_core/runservice/`", "Rooms of the run service"),
        ("### `agola_core/executor/`", "Rooms of the executor"),
    ],
)
def test_the_rooms_of_a_package_are_those_of_its_rule(title, contract):
    rows = [
        re.findall(r"`([\w]+)(?:/|\.py)`", line.split("|")[1]) for line in section(title).splitlines() if "|" in line
    ]
    told = [name for row in rows for name in row]
    wanted = layers(contract)
    assert sorted(told) == sorted(name for layer in wanted for name in layer)
    depths = [next(depth for depth, layer in enumerate(wanted) if name in layer) for name in told]
    assert depths == sorted(depths)


def test_every_package_is_a_room_of_the_page():
    for top in ("agola_core", "adapters"):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            if len(parts) == 3:
                room = "/".join(parts[1:] if top == "adapters" else parts) + "/"
                owner = f"### `{'/'.join(parts[:2])}/`\n"
                assert f"| `{room}` |" in PAGE or (owner in PAGE and f"`{parts[2]}/`" in PAGE.split(owner)[1]), room


@pytest.mark.parametrize(("question", "files", "symbol"), DECISIONS, ids=[row[0] for row in DECISIONS])
def test_a_decision_is_where_the_page_says(question, files, symbol):
    for file in re.findall(r"`([^`]+)`", files):
        assert (ROOT / file.rstrip("/")).exists(), file
    assert not symbol or defines(ROOT / re.findall(r"`([^`]+)`", files)[0], symbol), symbol


def test_every_row_of_decisions_is_tried():
    rows = [line for line in section("## Where is it decided").splitlines() if line.startswith("| ")]
    assert len(DECISIONS) == len(rows) - 1
