"""The walkthrough is what happens: its calls are made under a profiler, and pass its stops.

Of one write, each part is held to this: the stops are entered for the first time in the order of the page; every
file of the core that is entered, and every public function by which another file enters a stop's file, is a stop of
this part or an earlier one, or stands under "On the way". Of one run, whose threads go on side by side: its stops are
passed in the order of the page, and every file of the run service and the executor that is entered is named.
"""

import contextlib
import fnmatch
import importlib
import inspect
import re
import sys
import threading
import uuid
from pathlib import Path
from typing import NamedTuple

import pytest

import agola_core
from agola_core import Options, Put
from agola_core.readdb import ReadDB
from agola_core.runconfig import RunContext, parse_config, run_tasks
from agola_core.runservice.model.requests import RunCreateRequest, RunQuery
from agola_core.standalone import Standalone
from agola_http.access.control import Access, Tokens
from agola_http.app import App
from agola_http.client import Client
from agola_http.server.connections.limits import Limits
from agola_http.server.connections.uvicorn_server import Server, listen
from tests.support.pages import DOCS, ROOT

PAGE = (DOCS / "walkthrough.md").read_text()
WRITE, RUN = PAGE.split("\n## One write\n")[1].split("\n## One run\n")
CONFIG = b"runs: [{name: walk, tasks: [{name: greet, steps: [{run: echo hello}]}]}]"


class Entered(NamedTuple):
    """A function that was entered, and the file that called it; "" for one outside of the project."""

    file: str
    function: str
    caller: str


def stops(text):
    """Return the file and the function of each stop."""
    return re.findall(r"^\d+\. `([^`]+)` `([^`]+)`:", text, re.MULTILINE)


def on_the_way(text):
    """Return what the paragraphs "On the way" name."""
    return set(
        re.findall(r"`([^`]+)`", "".join(re.findall(r"^\*On the way:\*.*?(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)))
    )


def is_named(file, named):
    """Return whether a file, or a pattern that it matches, is among what is named."""
    return any(fnmatch.fnmatch(file, item) for item in named if item.endswith(".py"))


class Trace:
    """Records the functions of the project that are entered by this thread, or by all that start meanwhile, too."""

    def __init__(self, *, all_threads=False):
        self.entered = []
        self.on = False
        self._all_threads = all_threads

    def __enter__(self):
        if self._all_threads:
            threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error):
        self.on = False
        sys.setprofile(None)
        threading.setprofile(None)

    @contextlib.contextmanager
    def part(self):
        """Record what is entered within the block, and yield the list that gets it."""
        self.entered = []
        self.on = True
        yield self.entered
        self.on = False

    def _note(self, frame, event, argument):
        name = frame.f_code.co_qualname
        if self.on and event == "call" and not name.endswith(".__del__") and (file := _file(frame)):
            caller = frame.f_back
            self.entered.append(Entered(file, name, _file(caller) if caller else ""))


def _file(frame):
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(ROOT):
        return ""
    file = str(path.relative_to(ROOT))
    return file if file.startswith(("agola_core/", "adapters/")) else ""


def is_door(entered):
    """Return whether a call enters a file by a public function of it that is no property."""
    names = entered.function.split(".")
    if entered.caller in {"", entered.file} or any(name.startswith(("_", "<")) for name in names):
        return False
    item = importlib.import_module(entered.file.removesuffix(".py").replace("/", "."))
    for name in names:
        item = inspect.getattr_static(item, name)
    return not isinstance(item, property)


class Sizes:
    name, version, data_types = "sizes", 1, ("note",)
    schema = "CREATE TABLE size (id TEXT PRIMARY KEY, size INTEGER NOT NULL)"

    def apply(self, tx, actions):
        for action in actions:
            tx.execute("INSERT OR REPLACE INTO size VALUES (?, ?)", (action.id, len(action.data)))


@pytest.fixture(scope="module")
def one_write(tmp_path_factory):
    """Make a write and everything that follows from it, in one thread; return what each part has entered."""
    place = tmp_path_factory.mktemp("walk")
    parts = {}
    with (
        Trace() as trace,
        agola_core.open(place / "data", data_types=["note"], options=Options(background=False)) as dm,
        contextlib.closing(ReadDB(dm, place / "sizes.db", [Sizes()])) as readdb,
    ):
        dm.write_wal([Put("note", "before", b"0")])
        dm.checkpoint(force=True)
        readdb.catch_up()
        token = dm.change_groups_token(["n1"])
        with trace.part() as parts["Commit"]:
            dm.write_wal([Put("note", "n1", b"hello")], token)
        with trace.part() as parts["Sync to storage"]:
            dm.sync()
        with trace.part() as parts["Checkpoint"]:
            dm.checkpoint(force=True)
        with trace.part() as parts["Read"]:
            assert dm.read_object("note", "n1")[0] == b"hello"
        with trace.part() as parts["Readdb"]:
            readdb.catch_up()
        assert readdb.position == dm.sequence
    return parts


SECTIONS = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^### |\Z)", WRITE, re.DOTALL | re.MULTILINE))


def test_the_parts_of_a_write_are_those_of_the_page(one_write):
    assert list(SECTIONS) == list(one_write)


@pytest.mark.parametrize("part", SECTIONS)
def test_a_write_passes_the_stops_of_the_page_in_their_order(one_write, part):
    wanted = stops(SECTIONS[part])
    assert wanted
    first = dict.fromkeys((entered.file, entered.function) for entered in one_write[part])
    assert [stop for stop in first if stop in wanted] == wanted


@pytest.mark.parametrize("part", SECTIONS)
def test_a_write_enters_nothing_that_the_page_leaves_out(one_write, part):
    told = list(SECTIONS)[: list(SECTIONS).index(part) + 1]
    passed = {stop for section in told for stop in stops(SECTIONS[section])}
    named = set().union(*(on_the_way(SECTIONS[section]) for section in told))
    files = {file for file, _ in passed}
    entered = {item.file for item in one_write[part]}
    assert "\n".join(sorted(file for file in entered - files if not is_named(file, named))) == ""
    walked = {file for file in files if not is_named(file, named)}
    doors = {item for item in one_write[part] if item.file in walked and is_door(item)}
    left_out = {f"{door.file} {door.function}" for door in doors if (door.file, door.function) not in passed}
    assert "\n".join(sorted(door for door in left_out if door.split()[1] not in named)) == ""


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    """Let a client make a run on a service, and return what was entered until it is archived and listed."""
    config = parse_config(CONFIG, "walk.yml")
    place = tmp_path_factory.mktemp("walk") / "data"
    with Trace(all_threads=True) as trace, listen("127.0.0.1", 0) as listener, Standalone(place) as standalone:
        server = Server(App(standalone, Access(Tokens()), Limits()), Limits())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client, trace.part() as entered:
                tasks = run_tasks(config, config.runs[0], RunContext(), lambda: str(uuid.uuid4()))
                request = RunCreateRequest(run_config_tasks=tasks, name="walk", group="/user/me/branch/main")
                run = client.create_run(request).run
                assert standalone.service.wait_archived([run.id], 60)
                (listed,) = client.list_runs(RunQuery())
        finally:
            server.should_exit = True
            thread.join()
    assert listed.result == "success"
    return entered


def test_a_run_passes_the_stops_of_the_page_in_their_order(one_run):
    passed, calls = [], iter(one_run)
    for stop in stops(RUN):
        if not any((entered.file, entered.function) == stop for entered in calls):
            break
        passed.append(stop)
    assert passed == stops(RUN)


def test_a_run_enters_no_file_that_the_page_leaves_out(one_run):
    entered = {
        item.file for item in one_run if item.file.startswith(("agola_core/runservice/", "agola_core/executor/"))
    }
    walked, named = {file for file, _ in stops(RUN)}, on_the_way(RUN)
    assert "\n".join(sorted(file for file in entered - walked if not is_named(file, named))) == ""


def test_what_the_page_names_is_there():
    for file, _ in [*stops(WRITE), *stops(RUN)]:
        assert (ROOT / file).is_file(), file
    for named in on_the_way(WRITE) | on_the_way(RUN):
        assert not named.endswith(".py") or list(ROOT.glob(named)), named
