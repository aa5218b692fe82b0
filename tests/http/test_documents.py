"""The documents of Agola's interface, to the byte."""

import re

import pytest

from agola_cli.runs.patience import Patience
from agola_core.datamanager import Put
from agola_core.errors import UnavailableError
from agola_core.runservice.archive.projection import RUN, RUN_CONFIG
from agola_core.runservice.model.line_times import LineClock, encode, parse
from agola_core.runservice.model.requests import LogPart
from agola_http.client import Client

API = "/api/v1alpha"
RUN_ID = "0000001ekg0a0-0000000000001"
RUN_DOCUMENT = (
    '{"id":"RUN_ID","name":"r","counter":1,"group":"/project/p1/branch/a%2Fb","annotations":{"k":"\\u003cv\\u003e"},'
    '"phase":"finished","result":"success","tasks":{"t1":{"id":"t1","status":"success",'
    '"setup_step":{"phase":"success","log_phase":"finished"},'
    '"steps":[{"phase":"success","log_phase":"finished","start_time":"2019-07-01T10:00:00.12+02:00",'
    '"end_time":"2019-07-01T08:00:01Z"}],"workspace_archives":[0],"workspace_archives_phase":["finished"]}},'
    '"enqueue_time":"2019-07-01T08:00:00Z","archived":true}'
).replace("RUN_ID", RUN_ID)
CONFIG_DOCUMENT = (
    '{"id":"RUN_ID","name":"r","group":"/project/p1/branch/a%2Fb","tasks":{"t1":{"id":"t1","name":"only",'
    '"depends":{},"runtime":{"type":"pod","containers":[{"image":"i","privileged":false,"entrypoint":""}]},'
    '"steps":[{"type":"run","name":"one","command":"true"},null],"docker_registries_auth":null}}}'
).replace("RUN_ID", RUN_ID)


@pytest.fixture(scope="module")
def archived(server):
    """A run of an older store, as Agola wrote it, with its logs."""
    datamanager = server.datamanager
    datamanager.write_wal([Put(RUN, RUN_ID, RUN_DOCUMENT.encode()), Put(RUN_CONFIG, RUN_ID, CONFIG_DOCUMENT.encode())])
    datamanager.storage.write("logs/t1/data/setup.log", b"set up\n")
    datamanager.storage.write("logs/t1/data/steps/0.log", b"\x1b[1mone\n\xff\n")
    return server


def test_a_run_is_read_as_agola_wrote_it(archived):
    answer = archived.request("GET", f"{API}/runs/{RUN_ID}?changegroup=g")
    match = re.fullmatch(
        r'\{"run":(.*),"run_config":(.*),"change_groups_update_tokens":"([A-Za-z0-9+/]+=*)"\}', answer.body.decode()
    )
    assert match, answer.body
    assert match[1] == RUN_DOCUMENT
    assert match[2] == CONFIG_DOCUMENT
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


def test_a_list_is_a_page_of_runs(archived):
    answer = archived.request("GET", f"{API}/runs?group=/project/p1/branch/a%252Fb")
    assert answer.body.decode().startswith('{"runs":[' + RUN_DOCUMENT + '],"change_groups_update_tokens":"')
    answer = archived.request("GET", f"{API}/runs?phase=queued&group=/project/p1")
    assert answer.body.decode().startswith('{"runs":[],')


@pytest.mark.parametrize(("query", "body"), [("setup", b"set up\n"), ("step=0", b"\x1b[1mone\n\xff\n")])
@pytest.mark.parametrize("follow", ["", "&follow"])
def test_a_stored_log_is_raw_bytes_also_followed(archived, query, body, follow):
    answer = archived.request("GET", f"{API}/logs?runid={RUN_ID}&taskid=t1&{query}{follow}")
    assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, body, "no-cache")


UNKNOWN = b"-".ljust(25)


@pytest.mark.parametrize(
    ("query", "body", "begin"),
    [
        ("tail=1", b"\xff\n", "8"),
        ("tail=0", b"", "10"),
        ("tail=9&offset=8", b"\xff\n", "8"),
        ("timestamps", UNKNOWN + b"\x1b[1mone\n" + UNKNOWN + b"\xff\n", None),
        ("timestamps&tail=1&follow", UNKNOWN + b"\xff\n", "8"),
        ("timestamps&since=2999-01-01T00:00:00Z", UNKNOWN + b"\x1b[1mone\n" + UNKNOWN + b"\xff\n", "0"),
    ],
)
def test_a_part_of_a_log_that_has_no_times(archived, query, body, begin):
    answer = archived.request("GET", f"{API}/logs?runid={RUN_ID}&taskid=t1&step=0&{query}")
    assert (answer.status, answer.body, answer.headers.get("agola-offset")) == (200, body, begin)


@pytest.fixture
def timed(archived):
    """Times of the stored log, and those of another log."""
    storage, path = archived.datamanager.storage, "logs/t1/data/steps/0.log.times"
    clock = LineClock()
    times = parse(clock.take(8, 1_000_000_000_042) + clock.take(10, 1_000_000_001_000))
    yield lambda size: storage.write(path, encode(times, size))
    storage.delete(path)


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("timestamps", b"2001-09-09T01:46:40.042Z \x1b[1mone\n2001-09-09T01:46:41.000Z \xff\n"),
        ("since=2001-09-09T01:46:40.043Z", b"\xff\n"),
        ("since=2001-09-09T03:46:40.042%2B02:00&timestamps&tail=1&follow", b"2001-09-09T01:46:41.000Z \xff\n"),
        ("since=2001-09-09T01:46:41.001Z&timestamps", b""),
    ],
)
def test_a_part_of_a_log_with_times(archived, timed, query, body):
    timed(10)
    answer = archived.request("GET", f"{API}/logs?runid={RUN_ID}&taskid=t1&step=0&{query}")
    assert (answer.status, answer.body) == (200, body)
    timed(11)  # another log's
    answer = archived.request("GET", f"{API}/logs?runid={RUN_ID}&taskid=t1&step=0&timestamps")
    assert answer.body.count(UNKNOWN) == 2


def test_times_of_a_stored_log_are_asked_for_once(archived, timed):
    """A log of an older version has none: each megabyte of it asked storage twice more."""
    times = archived.service.log_times(RUN_ID, "t1", 0)
    times.reach(8)
    timed(10)
    times.reach(10)
    assert times.at(8) is None
    again = archived.service.log_times(RUN_ID, "t1", 0)
    again.reach(10)
    assert again.at(8) == 1_000_000_000_042


def test_a_followed_part_that_is_cut_off_goes_on_where_it_was(archived, timed):
    timed(10)

    class Cut(Client):
        cuts = 0

        def open_log(self, *arguments, **options):
            for piece in super().open_log(*arguments, **options):
                if self.cuts < 3:
                    self.cuts += 1
                    yield piece[: 12 * self.cuts]
                    raise UnavailableError("cut off")
                yield piece

    with Cut(archived.url) as client:
        patience = Patience(client, lambda _: None, seconds=60)
        followed = patience.follow_log(RUN_ID, "t1", 0, LogPart(timestamps=True, tail=1))
        assert b"".join(followed) == b"2001-09-09T01:46:41.000Z \xff\n"
        assert client.cuts == 3


def test_the_page_tells_times_where_it_is_asked_to(archived, timed):
    page = f"/page/runs/{RUN_ID}/tasks/t1/log"

    def shown(path):
        answer = archived.request("GET", path)
        assert answer.status == 200
        return answer.body.decode()

    first = '<time datetime="2001-09-09T01:46:40.042Z">01:46:40.042</time>'
    timed(10)
    assert '<time datetime="2001' not in shown(f"{page}?step=0")
    whole = shown(f"{page}?step=0&times=on&from=1")
    assert first in whole
    assert f'href="{page}?step=0&amp;from=1" aria-current="true">Times</a>' in whole
    assert f'data-rows="{page}/rows?step=0&amp;times=on"' in whole
    assert "step=0&amp;timestamps=" in whole  # the raw log
    assert shown(f"{page}/rows?step=0&times=on&from=1").count("<time ") == 2
    assert first in shown(f"{page}/follow?step=0&times=on")
    found = archived.request("GET", f"{page}/next?step=0&text=one&times=on")
    assert found.headers["location"] == f"{page}?step=0&times=on&at=1#L1"
    timed(11)
    assert "not known of this log" in shown(f"{page}?step=0&times=on")


def test_logs_that_the_run_does_not_have(archived):
    for query, message in (
        ("taskid=t2&step=0", f"no such task with ID t2 in run {RUN_ID}"),
        ("taskid=t1&step=1", f"no such step for task t1 in run {RUN_ID}"),
    ):
        answer = archived.request("GET", f"{API}/logs?runid={RUN_ID}&{query}")
        assert (answer.status, answer.message) == (404, message)


def test_an_export_for_agola_has_no_separators(archived):
    body = archived.request("GET", f"{API}/export?format=agola").body
    assert body.startswith(b'{"id":"%s","data_type":"run","data":"' % RUN_ID.encode())
    assert b"\n" not in body.strip()
    assert b"}{" in body
    assert archived.request("GET", f"{API}/export?format=dance").status == 400


def test_an_archived_run_takes_no_action(archived):
    answer = archived.request("PUT", f"{API}/runs/{RUN_ID}/actions", {"action_type": "stop"})
    assert answer.status in {400, 404}
    restarted = archived.request("POST", f"{API}/runs", {"run_id": RUN_ID, "from_start": True})
    assert restarted.status == 201
    assert restarted.json()["run"]["group"] == "/project/p1/branch/a%2Fb"
    refused = archived.request("POST", f"{API}/runs", {"run_id": RUN_ID})
    assert (refused.status, "has success result" in refused.message) == (400, True)
