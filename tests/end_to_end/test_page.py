"""The web page, in a real browser."""

import json
import re
import shutil
import textwrap
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec
import pytest
from msgspec.structs import replace

import agola_core
from agola_core import Put
from agola_core.runconfig import RunContext, parse_config, run_tasks
from agola_core.runservice.logs.line_index import split_lines
from agola_core.runservice.logs.log_lines import write_log
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import (
    ExecutorPhase,
    FetchPhase,
    RunPhase,
    RunResult,
    RunTaskStep,
    TaskStatus,
)
from agola_core.runservice.rules.new_run import new_run
from agola_core.sequence import Sequence
from agola_core.standalone import open_store
from agola_pytest.fixtures import require

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def browser(request):
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium")
    if executable is None:
        require.missing(request.config, "chromium", "no chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    contexts = []

    def open_one(url, **arguments):
        context = browser.new_context(**arguments)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()


def create(client, text, group="/project/p1/branch/master", **said):
    config = parse_config(textwrap.dedent(text).encode(), "config.yml")
    (run,) = config.runs
    numbers = iter(range(1000))
    tasks = run_tasks(config, run, RunContext(), lambda: f"{run.name.replace('/', '')}-{next(numbers)}")
    request = RunCreateRequest(run_config_tasks=tasks, name=run.name, group=group, **said)
    return client.create_run(request).run


GATED = """
    runs:
      - name: gated
        tasks:
          - {name: build, steps: [{run: "echo 'built <b>bold</b>'; printf '\\\\033[31mred\\\\033[0m\\\\n'"}]}
          - {name: deploy, approval: true, depends: [build], steps: [{run: echo deployed}]}
          - {name: report, depends: [deploy], steps: [{run: exit 3}]}
    """


def test_a_run_is_watched_approved_and_restarted_without_reloading(agola_runservice, open_page):
    client = agola_runservice.client()
    run = create(client, GATED)
    page = open_page(agola_runservice.url)
    page.get_by_role("link", name=re.compile("gated")).click()
    page.get_by_role("button", name="Approve deploy").click()
    page.locator("h1 .state.failed").wait_for()
    assert "exit code 3" in page.locator("#task").inner_text()  # opened at what failed
    page.get_by_role("link", name="Graph").click()
    page.locator("svg.graph a").first.wait_for()
    assert page.locator("svg.graph a").count() == 3
    assert page.locator("svg.graph path.edge").count() == 2
    page.get_by_role("link", name="Timeline").click()
    page.locator("svg.timeline a").first.wait_for()
    assert page.locator("svg.timeline a.critical").count() == 3
    assert page.locator("svg.timeline rect.step").count() == 3
    page.locator("#tasks").get_by_role("link", name="build").click()
    page.locator("#L2").wait_for()
    page.go_back()
    page.locator("svg.timeline").wait_for()
    page.go_forward()
    page.locator("#L2").wait_for()
    lines = page.locator("#log div span").all_inner_texts()
    assert lines == ["built <b>bold</b>", "red"]
    assert page.locator("#L2 a").get_attribute("href") == "#L2"
    assert page.locator("#L2 span i.fg1").inner_text() == "red"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == b"built <b>bold</b>\n\x1b[31mred\x1b[0m\n"
    page.goto(f"{agola_runservice.url}/page/runs/{run.id}")
    page.get_by_role("button", name="Restart all").click()
    page.wait_for_url(lambda url: run.id not in url)
    assert page.problems == []


def test_a_log_is_followed_while_it_grows_and_the_run_is_stopped(agola_runservice, open_page, tmp_path):
    gate, more, flood = tmp_path / "gate", tmp_path / "more", tmp_path / "flood"
    client = agola_runservice.client()
    command = f"""printf '\\033[32mfirst\\033[m\\nwait'; until test -e {gate}; do sleep 0.05; done
        echo ed; seq 300; until test -e {more}; do sleep 0.05; done; echo last
        until test -e {flood}; do sleep 0.05; done; seq 30000; sleep 600"""
    task = {"name": "only", "steps": [{"type": "run", "name": "grow", "command": command}]}
    run = create(client, json.dumps({"runs": [{"name": "growing", "tasks": [task]}]}))
    page = open_page(f"{agola_runservice.url}/page/runs/{run.id}")
    page.locator("#L1 span i.fg2", has_text="first").wait_for()
    page.locator("#L2 span", has_text=re.compile("^wait$")).wait_for()  # a line that goes on is shown as far as it is
    gate.touch()
    page.wait_for_function(IN_VIEW, arg="L302")
    assert page.locator("#L2 span").all_inner_texts() == ["waited"]
    page.evaluate("document.getElementById('log').scrollTop = 0")  # who scrolls up is left where they are
    page.wait_for_function("() => !document.getElementById('tail').checked")
    more.touch()
    page.locator("#L303", has_text="last").wait_for(state="attached")
    assert page.evaluate("document.getElementById('log').scrollTop") == 0
    page.get_by_label("Follow the end").check()
    page.wait_for_function(IN_VIEW, arg="L303")
    flood.touch()
    page.wait_for_function(IN_VIEW, arg="L30303")  # of a flood the newest lines are kept
    assert page.locator("#log > div").count() == 5000
    page.get_by_role("button", name="Stop").click()
    page.locator("h1 .state.stopped").wait_for()
    assert page.problems == []


def finished(client, run):
    while not (current := client.get_run(run.id).run).phase.is_finished:
        client.wait_change(current, 60)
    return current


def stored(client, run):
    """Wait until every log of a finished run is in storage."""
    finished(client, run)
    while any(
        step.log_phase is not FetchPhase.FINISHED
        for task in client.get_run(run.id).run.tasks.values()
        for step in task.steps
    ):
        client.wait_change(client.get_run(run.id).run, 1)
    return client.get_run(run.id).run


def log_url(service, run, step=0):
    (task,) = run.tasks
    return f"{service.url}/page/runs/{run.id}/tasks/{task}/log?step={step}"


IN_VIEW = """id => {
    const row = document.getElementById(id);
    if (!row) return false;
    const box = row.getBoundingClientRect(), log = row.closest(".log").getBoundingClientRect();
    return box.bottom > log.top && box.top < log.bottom;
}"""


HASH_IS_SEEN = """hash => new Promise((seen) => {
    addEventListener("hashchange", () => seen(), { once: true });
    location.hash = hash;
})"""


def test_a_long_log_shows_its_end_and_every_line_has_an_anchor(agola_runservice, open_page):
    client = agola_runservice.client()
    run = stored(client, create(client, "runs: [{name: long, tasks: [{name: t, steps: [{run: seq 1000000}]}]}]"))
    page = open_page(log_url(agola_runservice, run))
    page.wait_for_function(IN_VIEW, arg="L1000000")
    assert page.locator("#L1").count() == 0
    assert page.locator("#log > div").count() == 500
    page.evaluate("location.hash = 'L45000'")
    page.wait_for_function(IN_VIEW, arg="L45000")
    assert page.locator("#L45000 span").inner_text() == "45000"
    page.evaluate("document.getElementById('log').scrollTop = 0")  # what stands before is loaded, and nothing jumps
    page.locator("#L44400").wait_for(state="attached")
    page.get_by_label("Line").fill("777777")
    page.get_by_role("button", name="Go").click()
    page.wait_for_function(IN_VIEW, arg="L777777")
    page.go_back()
    page.wait_for_function(IN_VIEW, arg="L45000")
    page.get_by_role("link", name="First lines").click()
    page.locator("#L1 span").wait_for()
    page.evaluate("document.getElementById('log').scrollTop = 1e9")
    page.locator("#L501").wait_for(state="attached")

    def ask_meanwhile(route):  # for another line, while the rows of this request are on their way
        page.evaluate(HASH_IS_SEEN, "L54321")
        route.continue_()

    page.route("**/log/rows?*", ask_meanwhile, times=1)
    page.evaluate("document.getElementById('log').scrollTop = 1e9")
    page.wait_for_function(IN_VIEW, arg="L54321")
    page.goto(log_url(agola_runservice, run) + "#L123456")
    page.wait_for_function(IN_VIEW, arg="L123456")
    page.get_by_label("Find", exact=True).fill("98765")  # in the whole log, not in what is shown
    page.get_by_role("button", name="Find").click()
    page.get_by_text("20 found").wait_for()
    page.get_by_role("link", name="987654", exact=True).click()
    page.wait_for_function(IN_VIEW, arg="L987654")
    assert page.problems == []


def test_a_log_without_newlines_and_one_without_script_are_shown(agola_runservice, open_page):
    client = agola_runservice.client()
    command = "head -c 100000 /dev/zero | tr '\\\\0' x; echo; echo last"
    run = stored(client, create(client, f'runs: [{{name: wide, tasks: [{{name: t, steps: [{{run: "{command}"}}]}}]}}]'))
    page = open_page(log_url(agola_runservice, run), java_script_enabled=False, viewport={"width": 390, "height": 800})
    texts = page.locator("#log > div span").all_inner_texts()
    assert (len(page.content()) < 60_000, texts[-1]) == (True, "last")  # what is long is sent when it is asked for
    while (earlier := page.get_by_role("link", name="Earlier lines")).count():
        page.goto(agola_runservice.url + earlier.get_attribute("href"))
        texts = page.locator("#log > div span").all_inner_texts() + texts
    assert (len("".join(texts[:-1])), texts[-1]) == (100_000, "last")
    page.goto(log_url(agola_runservice, run) + "&from=2")
    assert page.locator("#L2").count() == 1
    assert page.locator("#L1").count() == 0
    page.goto(log_url(agola_runservice, run) + "&from=0")
    assert "line's number" in page.get_by_role("alert").inner_text()


def test_what_changes_is_patched_and_all_else_stays(agola_runservice, open_page, tmp_path):
    client = agola_runservice.client()
    gate = tmp_path / "gate"
    run = create(
        client,
        f"""
        runs:
          - name: patched
            tasks:
              - name: slow
                steps: [{{run: "until test -e {gate}; do sleep 0.05; done"}}, {{run: exit 1}}, {{run: sleep 600}}]
              - {{name: beside, steps: [{{run: sleep 600}}]}}
        """,
    )
    page = open_page(f"{agola_runservice.url}/page/runs/{run.id}", viewport={"width": 800, "height": 300})
    page.locator("h1 .state.running").wait_for()
    page.get_by_role("button", name="Stop").focus()
    page.evaluate(
        """() => {
            window.kept = ["run-title", "stop", "tasks"].map((id) => document.getElementById(id));
            getSelection().selectAllChildren(document.getElementById("run-title"));
            scrollTo(0, 120);
        }"""
    )
    reader = "[getSelection().toString(), scrollY, document.activeElement.textContent]"
    before = page.evaluate(reader)
    assert before[1] > 0
    gate.touch()
    page.locator("#tasks .row.failed").wait_for()
    assert page.evaluate("window.kept.every((node) => node.isConnected)")
    selected, scrolled, focused = page.evaluate(
        "[getSelection().toString(), scrollY, document.activeElement.textContent]"
    )
    assert (selected.split("#")[0], scrolled, focused) == (before[0].split("#")[0], before[1], "Stop")
    assert "failed" in page.locator("#tasks .row").first.get_attribute("class")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Restart all").wait_for()
    assert page.problems == []


def test_a_lost_connection_says_so_and_comes_back(agola_runservice, open_page):
    page = open_page(agola_runservice.url)
    page.context.set_offline(True)
    page.locator("#connection", has_text="Connection lost").wait_for()
    page.context.set_offline(False)
    page.locator("#connection").wait_for(state="hidden")
    create(agola_runservice.client(), "runs: [{name: later, tasks: [{name: t, steps: [{run: exit 0}]}]}]")
    page.get_by_role("link", name=re.compile("later")).wait_for()


def test_times_say_their_zone_and_the_readers_own_on_hover(agola_runservice, open_page):
    run = create(agola_runservice.client(), "runs: [{name: timed, tasks: [{name: t, steps: [{run: echo one}]}]}]")
    page = open_page(agola_runservice.url, timezone_id="Asia/Tokyo", locale="en-GB")
    shown = page.locator(f"#run-{run.id} time")
    made = run.enqueue_time
    assert re.fullmatch(r"now|\d+ s ago", shown.inner_text())
    assert made.astimezone(ZoneInfo("Asia/Tokyo")).strftime("%H:%M:%S") in shown.get_attribute("title")
    page.goto(f"{agola_runservice.url}/page/runs/{run.id}")
    assert page.locator("#run-facts time").inner_text() == made.strftime("%Y-%m-%d %H:%M:%S UTC")
    page.goto(log_url(agola_runservice, stored(agola_runservice.client(), run)))
    assert page.locator("#log time").count() == 0
    page.locator("#times").click()
    page.wait_for_url("**/log?step=0&times=on")
    line = page.locator("#L1 time")
    written = datetime.fromisoformat(line.get_attribute("datetime"))
    assert made <= written
    assert line.inner_text() == written.strftime("%H:%M:%S.%f")[:12]
    line.hover()
    assert written.astimezone(ZoneInfo("Asia/Tokyo")).strftime("%H:%M:%S") in line.get_attribute("title")
    page.locator("#times").click()
    page.wait_for_url("**/log?step=0")
    assert page.problems == []


def test_a_run_that_waits_for_somebody_is_not_shown_as_running(agola_runservice, open_page):
    client = agola_runservice.client()
    run = create(client, GATED)
    page = open_page(agola_runservice.url)
    page.locator(f"#run-{run.id} .state.waiting", has_text="waiting for approval").wait_for()
    page.goto(f"{agola_runservice.url}/?state=waiting")
    assert page.locator("tbody tr").count() == 1
    page.goto(f"{agola_runservice.url}/?state=running")
    assert page.locator("tbody tr").count() == 0


def test_a_restart_has_other_variables_and_leads_to_the_run_before_it_which_can_be_deleted(agola_runservice, open_page):
    client = agola_runservice.client()
    steps = [{"type": "run", "name": "tell", "command": 'echo "it is $COLOUR $KEPT"; exit 1'}]
    text = json.dumps({"runs": [{"name": "again", "tasks": [{"name": "t", "steps": steps}]}]})
    run = create(client, text, environment={"COLOUR": "red", "KEPT": "here", "my.own-1": "x", "CR": "a\rb"})
    page = open_page(f"{agola_runservice.url}/page/runs/{run.id}")
    page.locator("#log", has_text="it is red here").wait_for()
    page.get_by_role("link", name="Other variables").click()
    assert page.get_by_label("Variables").input_value() == "COLOUR=red\nKEPT=here\nmy.own-1=x"
    assert page.get_by_text("not kept unless written again: CR").count() == 1  # it would come back as another
    page.get_by_label("Variables").fill("COLOUR=blue\n\nno variable")
    page.get_by_role("button", name="Restart what failed").click()
    assert "line 3 of the variables is not NAME=VALUE" in page.get_by_role("alert").inner_text()
    page.go_back()
    page.get_by_label("Variables").fill("COLOUR=blue\nmy.own-1=x\n")
    page.get_by_role("button", name="Restart what failed").click()
    page.locator("#log", has_text="it is blue").wait_for()
    page.locator("#run-facts").get_by_role("link", name=f"#{run.counter}", exact=True).click()
    page.wait_for_url(lambda url: run.id in url)
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/?group=*")
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("link", name="again").click()
    page.locator("#run-facts", has_text="restart of a run that is deleted").wait_for()
    assert [text for text in page.problems if "400" not in text] == []


ROWS = "#tasks a:not(.more)"
NAMES = [f"integration tests of the storage, part {number}" for number in (17, *range(20, 58))]
MANY = [
    "runs:",
    "  - name: many",
    "    tasks:",
    "      - {name: does not matter, ignore_failure: true, steps: [{run: exit 1}]}",
    *(f"      - {{name: '{name}', steps: [{{run: exit 0}}]}}" for name in NAMES[1:]),
    f"      - {{name: '{NAMES[0]}', depends: {NAMES[1:]}, steps: [{{run: exit 2}}]}}",  # the others have all run
]


def test_a_failure_among_forty_tasks_is_seen_without_scrolling(agola_runservice, open_page):
    client = agola_runservice.client()
    run = stored(client, create(client, "\n".join(MANY)))
    page = open_page(f"{agola_runservice.url}/page/runs/{run.id}", viewport={"width": 1280, "height": 800})
    assert "part 17" in page.locator("#tasks .row").first.inner_text()
    for seen in ("#tasks .row.failed", "#task .state.failed", "#pane", ".row.ignored", ".fold"):
        box = page.locator(seen).first.bounding_box()
        assert box["y"] + box["height"] <= 800
    fold = page.locator("#tasks .fold")
    assert (fold.locator("a").count() - fold.locator(".more").count(), fold.locator("summary").inner_text()[-10:]) == (
        0,
        "38 success",
    )
    assert page.evaluate("document.documentElement.scrollHeight") <= 1000
    page.get_by_label("Find a task").fill("PART 30")  # the server finds it, and its fold is open
    page.wait_for_function("() => document.querySelectorAll('#tasks a:not(.more)').length === 1")
    assert "q=PART+30" in page.url
    page.locator(ROWS).click()
    page.wait_for_url(lambda url: url.endswith("/log?q=PART+30"))
    page.locator("#task", has_text="part 30").wait_for()
    assert page.get_by_label("Find a task").input_value() == "PART 30"
    page.get_by_role("link", name="Graph").click()
    page.locator("svg.graph").wait_for()
    labels = page.locator("svg.graph text:not(.sub)").all_text_contents()
    assert len(labels) == 3
    page.locator("svg.graph a", has_text="38 success").click()  # what is folded in the list is folded here
    page.wait_for_function("() => document.querySelectorAll('svg.graph a').length === 40")
    labels = page.locator("svg.graph text:not(.sub)").all_text_contents()
    assert len(set(labels)) == 40
    sent, static = len(page.request.get(f"{agola_runservice.url}/page/runs/{run.id}").body()), 0
    for name in re.findall(r"/page/static/[a-z_]+\.(?:js|css)", page.content()):
        static += len(page.request.get(agola_runservice.url + name).body())
    assert 10_000 < static <= 60_000
    assert sent + static <= 150_000
    assert page.problems == []


def test_lists_are_filtered_and_new_runs_appear(agola_runservice, open_page):
    client = agola_runservice.client()
    page = open_page(agola_runservice.url)
    assert "No runs here yet" in page.inner_text("main")
    create(client, "runs: [{name: good, tasks: [{name: t, steps: [{run: exit 0}]}]}]", "/project/p1/branch/a")
    page.locator("td .state.success").wait_for()
    create(client, "runs: [{name: bad, tasks: [{name: t, steps: [{run: exit 1}]}]}]", "/project/p2/branch/a")
    page.locator("td .state.failed").wait_for()
    page.get_by_label("State").select_option("failed")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/?state=failed*")  # and until it is whole: counting waits for nothing
    assert page.locator("tbody tr").count() == 1
    page.goto(f"{agola_runservice.url}/?group=/project/p1")
    assert "good" in page.inner_text("tbody")
    assert page.locator("tbody tr").count() == 1
    badge = page.request.get(f"{agola_runservice.url}/badge.svg?group=/project/p2")
    assert "failed" in badge.text()


EVENT = {"webhook_event": "pull_request", "run_creation_trigger": "webhook"}
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}</script>\u202e"


def test_lists_tell_commits_and_histories_and_hostile_names_are_text(agola_runservice, open_page):
    client = agola_runservice.client()
    said = {"branch": HOSTILE, "commit_sha": "f00d" * 10, "message": f"{HOSTILE}\nmore", "webhook_sender": "ann"}
    links = {"commit_link": "javascript:alert(1)"}
    task = {"name": HOSTILE, "steps": [{"type": "run", "name": HOSTILE, "command": f"cat <<'E'\n{HOSTILE}\nE\nexit 1"}]}
    hostile = json.dumps({"runs": [{"name": HOSTILE, "tasks": [task]}]})
    ended = [stored(client, create(client, hostile, "/project/p9/branch/x", annotations=said | links))]
    for code in (0, 1):
        text = f"runs: [{{name: steady{code}, tasks: [{{name: unsteady, steps: [{{run: exit {code}}}]}}]}}]"
        ended.append(
            finished(client, create(client, text, "/project/p1/branch/a", annotations={"branch": "b", **EVENT}))
        )
    page = open_page(agola_runservice.url)
    row = page.locator(f"#run-{ended[0].id}").inner_text()
    for part in (f"{HOSTILE} #1", HOSTILE, "f00df00df0", "by ann"):
        assert part in row
    assert page.locator("a[href^='javascript']").count() == 0
    page.get_by_label("Text").fill("F00DF")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/?*text=F00DF")
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("link", name=HOSTILE).first.click()
    page.locator("#log", has_text=HOSTILE).wait_for()
    for view in ("Graph", "Timeline"):
        page.get_by_role("link", name=view).click()
        page.locator("svg", has_text="✗").wait_for()
    page.get_by_role("link", name="Groups").click()
    assert page.locator("tbody tr").count() == 2
    page.get_by_role("link", name="/project/p1/branch/a").click()
    history = page.locator(".history").inner_text()
    assert "50 % of 2" in history
    assert "unsteady 1 changes in 2 runs, failed in 1" in history
    assert page.locator(".history svg a").count() == 2
    page.goto(f"{agola_runservice.url}/?branch=b&state=failed")
    assert page.locator("tbody tr").count() == 1
    page.get_by_label("Started by").fill("ANN")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/?*branch=b*user=ANN*")
    assert page.locator("tbody tr").count() == 0
    page.get_by_role("link", name="All runs").click()
    page.locator(f"#run-{ended[0].id}").get_by_role("link", name="ann", exact=True).click()
    page.wait_for_url("**/?user=ann")
    assert page.locator("tbody tr").count() == 1
    assert page.get_by_label("Started by").input_value() == "ann"
    page.goto(f"{agola_runservice.url}/?user=an")
    assert page.locator("tbody tr").count() == 0
    page.get_by_role("link", name="All runs").click()
    page.get_by_label("Event").select_option("pull request")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/?*event=pull_request*")
    assert page.locator("tbody tr").count() == 2
    page.goto(f"{agola_runservice.url}/?event={quote(HOSTILE)}")
    assert page.locator("tbody tr").count() == 0
    assert page.get_by_label("Event").input_value() == HOSTILE
    assert page.problems == []


def test_everything_is_reached_by_keyboard(agola_runservice, open_page):
    create(agola_runservice.client(), GATED)
    page = open_page(agola_runservice.url)
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name"))
    assert reached[0] == "Skip to the content"
    assert "Store" in reached
    assert "group" in reached
    assert any("gated" in text for text in reached)
    page.get_by_role("link", name=re.compile("gated")).focus()
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Approve deploy")
    button.focus()
    page.keyboard.press("Enter")
    page.locator("h1 .state.failed").wait_for()


def test_the_store_is_shown_with_plots_findings_and_what_is_known_while_storage_is_away(agola_runservice, open_page):
    client = agola_runservice.client()
    run = stored(client, create(client, "runs: [{name: r, tasks: [{name: t, steps: [{run: echo said}]}]}]"))
    page = open_page(f"{agola_runservice.url}/page/store")
    assert page.locator("#live figure svg polyline").count() == 4
    assert "Newest WAL" in page.inner_text("main")
    page.locator("#live td", has_text="serving").wait_for()
    assert "none known" in page.locator("#exported").inner_text()
    assert "none known" in page.locator("#verified").inner_text()
    exported = page.request.get(f"{agola_runservice.url}/api/v1alpha/export")
    directory = agola_runservice.data_dir
    client.checkpoint()  # what is damaged now is read by nobody but a verify
    batch = next((directory / "storage/data/lineages").rglob("*.wals"))
    batch.write_bytes(b"not what was written")
    found = agola_core.verify(directory, noted_by="ann@here")
    page.reload()
    assert "by ann@here, " in page.locator("#verified").inner_text()
    assert f"{found[0].path} at offset 0: {found[0].message}" in page.locator("#findings li").all_inner_texts()
    assert f"native, {len(exported.body()):,} bytes" in page.locator("#exported").inner_text()
    assert page.locator("#findings li").count() == len(found)
    (directory / "storage").rename(directory / "unmounted")
    page.reload()
    page.locator("#storage-away", has_text="growth, export and verify are as of").wait_for()
    assert page.locator("#findings li").count() == len(found)
    log = open_page(log_url(agola_runservice, run))
    log.locator("#away, [role=alert]").wait_for()  # of a run that was read before, all but the log is shown
    (directory / "unmounted").rename(directory / "storage")
    page.locator("#storage-away").wait_for(state="detached")
    log.locator("#log", has_text="said").wait_for()
    assert page.problems == []


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_it_fits_phones_and_desks_in_light_and_dark(agola_runservice, open_page, scheme, width, tmp_path):
    create(agola_runservice.client(), GATED)
    page = open_page(agola_runservice.url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    backgrounds = set()
    for path in ("/", "/page/store"):
        page.goto(agola_runservice.url + path)
        page.screenshot(path=tmp_path / "shot.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 29)"}


def test_a_token_is_asked_for_once(agola_runservice_factory, open_page):
    tokens = {"AGOLA_CLIENT_TOKEN": "c" * 32, "AGOLA_EXECUTOR_TOKEN": "e" * 32, "AGOLA_ADMIN_TOKEN": "a" * 32}
    service = agola_runservice_factory(environment=tokens)
    page = open_page(service.url)
    page.get_by_label("Token").fill("wrong-token-of-some-length")
    page.get_by_role("button", name="Sign in").click()
    assert "not known" in page.get_by_role("alert").inner_text()
    page.get_by_label("Token").fill("c" * 32)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Runs").wait_for()
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()


def test_what_does_not_exist_is_said_in_words(agola_runservice, open_page):
    page = open_page(f"{agola_runservice.url}/page/runs/missing")
    assert "doesn't exist" in page.get_by_role("alert").inner_text()


def made_directly(directory, count, set_up_log=None):
    """Write a finished run of many tasks into a service's store, as its service would have left it.

    Args:
        directory: The store.
        count: The number of tasks.
        set_up_log: The log of the set-up of the task that failed, where it failed there; None where a step did.
    """
    config = {
        "runs": [
            {
                "name": "many",
                "tasks": [
                    {"name": f"test shard {number}", "steps": [{"type": "run", "name": "pytest", "command": "exit 1"}]}
                    for number in range(count)
                ],
            }
        ]
    }
    parsed = parse_config(json.dumps(config).encode(), "config.json")
    numbers = iter(range(count))
    tasks = run_tasks(parsed, parsed.runs[0], RunContext(), lambda: f"{next(numbers):08}-0000-4000-8000-000000000000")
    request = RunCreateRequest(run_config_tasks=tasks, name="many", group="/project/p5/branch/master")
    begin = datetime(2030, 1, 1, tzinfo=UTC)
    bundle = new_run(request, str(Sequence(1, 1000)), 1, begin)
    ended = {}
    for number, (task_id, task) in enumerate(bundle.run.tasks.items()):
        start, failed = begin + timedelta(seconds=number), number == count // 2
        end, phase = start + timedelta(seconds=30), ExecutorPhase.FAILED if failed else ExecutorPhase.SUCCESS
        step = RunTaskStep(phase, FetchPhase.FINISHED, start, end, int(failed), log_lost=True)
        status = TaskStatus.FAILED if failed else TaskStatus.SUCCESS
        ended[task_id] = replace(
            task,
            status=status,
            setup_step=replace(step, phase=phase, log_lost=False)
            if set_up_log
            else replace(step, phase=ExecutorPhase.SUCCESS),
            steps=[RunTaskStep(ExecutorPhase.NOT_STARTED, FetchPhase.FINISHED)] if failed and set_up_log else [step],
            start_time=start,
            end_time=end,
        )
    run = replace(
        bundle.run,
        phase=RunPhase.FINISHED,
        result=RunResult.FAILED,
        tasks=ended,
        start_time=begin,
        end_time=begin + timedelta(seconds=count + 30),
        archived=True,
    )
    with open_store(directory, background=False) as dm:
        actions = [
            Put("runconfig", run.id, msgspec.json.encode(bundle.run_config)),
            Put("run", run.id, msgspec.json.encode(run)),
        ]
        dm.write_wal([*actions, Put("runcounter", "p5", b"1")])
        if set_up_log:
            write_log(dm.storage, list(ended)[count // 2], None, [set_up_log])
    return run


REPORTED = """
    runs:
      - name: reported
        tasks:
          - name: unit
            steps:
              - run: >-
                  echo '<testsuite><testcase name="t"><failure message="no"/></testcase></testsuite>' > junit.xml;
                  echo error: it broke; exit 1
              - save_to_workspace: {contents: [{paths: ["*.xml"]}], always: true}
    """


def tab_to(page, wanted):
    """Press Tab until what has the focus has a text or a name, and return how often."""
    reader = "(e => `${e.textContent.trim()} ${e.name || ''} ${e.id}`)(document.activeElement)"
    for count in range(1, 80):
        page.keyboard.press("Tab")
        if re.search(wanted, page.evaluate(reader)):
            return count
    raise AssertionError(f"{wanted!r} is not reached")


def test_the_log_of_a_failed_set_up_is_opened_first(agola_runservice_factory, agola_directory, open_page):
    log = b"image: pulled half of it\nset-up failed: no <b>such</b> image\n"
    run = made_directly(agola_directory / "agola-runservices" / "unset", 1, log)
    service = agola_runservice_factory("unset")
    page = open_page(f"{service.url}/page/runs/{run.id}")
    assert page.locator("#log div span").all_inner_texts() == log.decode().splitlines()
    chosen = page.locator(".steps li.chosen")
    assert chosen.inner_text().split() == ["✗", "Set-up", "failed", "(exit", "code", "1)", "30.0", "s"]
    chosen.get_by_role("link").click()
    page.wait_for_url(re.compile(r"/log\?step=setup$"))
    page.get_by_label("Find", exact=True).fill("SUCH")
    page.get_by_role("button", name="Find").click()
    page.get_by_text("1 found").wait_for()
    page.get_by_role("link", name="2", exact=True).click()
    page.wait_for_function(IN_VIEW, arg="L2")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == log
    assert page.problems == []


GROUPED = b"".join(
    [
        b"start\n::group::small <img src=x onerror=alert(1)>\x1b[31m red\x1b[0m\none\ntwo\n::endgroup::\nbetween\n",
        b"::group::long\n",
        *(b"step %d\n" % number for number in range(500_000)),
        b"error: it is deep inside\n",
        *(b"step %d\n" % number for number in range(500_000)),
        b"::endgroup::\n::endgroup::\n",
        *(b"::group::one of many %d\n" % number + b"said\n" * 9 + b"::endgroup::\n" for number in range(500)),
        b"::group::" + b"n" * 300_000 + b"\n::group::broken\nerror: it broke\n::endgroup::\n",
        b"::group::\nlast\n",
    ]
)
DEEP = 7 + 500_000 + 1


def test_groups_of_lines_fold_in_logs_of_any_size(agola_runservice_factory, agola_directory, open_page):
    run = made_directly(agola_directory / "agola-runservices" / "folds", 1, GROUPED)
    service = agola_runservice_factory("folds")
    (task,) = run.tasks
    log = f"{service.url}/page/runs/{run.id}/tasks/{task}/log?step=setup"
    total = len(list(split_lines(GROUPED)))
    page = open_page(log, viewport={"width": 1280, "height": 800})
    page.wait_for_function(IN_VIEW, arg=f"L{total}")  # a group without an end is open, as is one with an error
    assert page.locator(f"#G{total - 1} summary span").inner_text().endswith("(no name)")
    assert page.locator("details.group", has_text="error: it broke").last.get_attribute("open") is not None
    page.locator("#error-count", has_text=re.compile("^2 found$")).wait_for()  # counted while the page is open
    page.goto(f"{log}&from=1")
    page.locator("#L1").wait_for()
    small, long = page.locator("#G2"), page.locator("#G7")
    assert "small <img src=x onerror=alert(1)> red" in small.inner_text()
    assert (small.get_attribute("open"), page.locator("#L3").is_visible()) == (None, False)
    page.evaluate(HASH_IS_SEEN, "L3")
    page.locator("#L3").wait_for()
    page.locator("#L7").focus()
    page.keyboard.press("Enter")  # what a long group holds comes when it is opened
    page.locator("#L8", has_text="step 0").wait_for()
    long.get_by_role("link", name="Show more lines").click()
    page.locator("#L1007").wait_for(state="attached")
    assert page.locator(f"#G{DEEP + 500_003}").count() == 1  # and what follows stays
    long.get_by_role("link", name="looks like an error").click()
    page.wait_for_url(f"**&at={DEEP}#L{DEEP}")
    page.wait_for_function(IN_VIEW, arg=f"L{DEEP}")
    page.evaluate("document.getElementById('log').scrollTop = 0")
    page.locator(f"#L{DEEP - 600}").wait_for(state="attached")
    assert page.locator("details.group").count() == 1  # parts of a group are one
    page.get_by_label("Find", exact=True).fill("STEP 499999")
    for button, line in (
        ("Next error", total - 3),
        ("Next error", DEEP),  # from the other end
        ("Previous match", DEEP - 1),
        ("Next match", DEEP + 500_000),
    ):
        page.get_by_role("button", name=button, exact=True).click()
        page.locator(f"#L{line}.target").wait_for()
        page.wait_for_function(IN_VIEW, arg=f"L{line}")
        assert page.url.endswith(f"#L{line}")
        page.locator("#jumped", has_text=f"line {line} of {total}").wait_for()
    page.get_by_role("link", name="Last lines").click()
    page.wait_for_function(IN_VIEW, arg=f"L{total}")
    for _ in range(9):  # scrolled through, it is loaded as it goes
        first = page.evaluate("firstLine(document.getElementById('log'))")
        page.evaluate("document.getElementById('log').scrollTop = 0")
        page.wait_for_function("first => firstLine(document.getElementById('log')) < first", arg=first)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.problems == []
    without = open_page(f"{log}&from=1", java_script_enabled=False)
    without.locator("#L2 span").click()
    without.locator("#L3").wait_for()
    without.locator("#L7 span").click()
    without.get_by_role("link", name="Show its lines").click()
    without.locator("#L8", has_text="step 0").wait_for()
    without.get_by_role("button", name="Next error", exact=True).click()
    without.locator(f"#L{DEEP}", has_text="deep inside").wait_for()
    without.get_by_label("Find", exact=True).fill("nowhere")
    without.get_by_role("button", name="Next match").click()
    without.get_by_text("no line like this").wait_for()


def test_groups_errors_and_texts_of_a_log_that_grows(agola_runservice, open_page, tmp_path):
    client, gate = agola_runservice.client(), tmp_path / "gate"
    command = f"""echo 'error: early'; echo '::group::first'; seq 3; echo '::endgroup::'
        seq 20000; echo '::group::open'; seq 3; until test -e {gate}; do sleep 0.05; done
        echo '::group::bad'; echo 'error: late'; echo '::endgroup::'; echo after; sleep 600"""
    task = {"name": "only", "steps": [{"type": "run", "name": "grow", "command": command}]}
    run = create(client, json.dumps({"runs": [{"name": "growing", "tasks": [task]}]}))
    page = open_page(f"{agola_runservice.url}/page/runs/{run.id}")
    page.wait_for_function(IN_VIEW, arg="L20010")
    assert page.locator("#G20007").get_attribute("open") is not None
    gate.touch()
    page.wait_for_function(IN_VIEW, arg="L20014")
    assert page.locator("#G20007").get_attribute("open") is None  # it has ended
    assert page.locator("#G20011").get_attribute("open") is not None  # it has, with an error
    page.get_by_role("button", name="Previous error").click()
    page.wait_for_function("() => document.querySelector('#L20012.target')")
    page.get_by_role("button", name="Previous error").click()  # the executor has it, the page has not
    page.wait_for_url("**&at=1#L1")
    page.locator("#L1", has_text="early").wait_for()
    assert page.locator("#G2").get_attribute("open") is None
    page.get_by_label("Find", exact=True).fill("19999")
    page.get_by_role("button", name="Next match").click()
    page.wait_for_function(IN_VIEW, arg="L20005")
    page.get_by_role("button", name="Find", exact=True).click()
    page.get_by_text("1 found").wait_for()
    page.get_by_role("link", name="20005").click()
    page.wait_for_function(IN_VIEW, arg="L20005")
    page.get_by_role("link", name="Follow the end").click()
    page.wait_for_function(IN_VIEW, arg="L20014")
    without = open_page(page.url, java_script_enabled=False)
    without.get_by_role("link", name="its last lines").click()
    without.locator("#L20014", has_text="after").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator("h1 .state.stopped").wait_for()
    assert page.problems == []


def test_five_hundred_tasks_by_keyboard_on_phones_and_desks(agola_runservice_factory, agola_directory, open_page):
    log = b"".join(b"%-90d\n" % number for number in range(500))
    many = made_directly(agola_directory / "agola-runservices" / "many", 500, log)
    service = agola_runservice_factory("many")
    client = service.client()
    reported = create(client, REPORTED, annotations={"message": "x" * 300, "branch": "b" * 200})
    while not (reported := client.get_run(reported.id).run).archived:  # with its reports
        client.wait_change(reported, 60)
    address = f"{service.url}/page/runs/{many.id}"
    page = open_page(address, viewport={"width": 1280, "height": 800})
    assert "shard 250" in page.locator("#tasks .row").first.inner_text()
    assert page.locator("#tasks .row").count() == 1
    fold = page.locator("#tasks .fold summary")
    assert fold.inner_text().endswith("499 success")
    tab_to(page, "499 success")
    page.keyboard.press("Enter")  # its tasks come, the focus stays, and the address tells it
    page.wait_for_function("() => document.querySelectorAll('#tasks a:not(.more)').length === 500")
    assert page.evaluate("document.activeElement.textContent").endswith("499 success")
    page.reload()
    assert page.locator(ROWS).count() == 500
    assert len(page.request.get(page.url).body()) <= 150_000
    sent = sum(page.evaluate("performance.getEntries().map(entry => entry.encodedBodySize || 0)"))
    assert 10_000 < sent <= 150_000
    tab_to(page, "^.* q ")
    page.keyboard.type("shard 49")
    page.wait_for_function("() => document.querySelectorAll('#tasks a:not(.more)').length === 11")
    tab_to(page, "shard 499")
    page.keyboard.press("Enter")
    page.locator("#task-name", has_text="shard 499").wait_for()
    page.goto(page.url.partition("?")[0])  # without the search: those around it, and a way to all
    assert page.locator("#tasks .fold a:not(.more)").count() == 21
    page.get_by_role("link", name="Show all 499").click()
    page.wait_for_function("() => document.querySelectorAll('#tasks a:not(.more)').length === 500")
    page.locator("#task-name", has_text="shard 499").wait_for()
    page.goto(address)
    for view, shapes, count in (("Graph", "svg.graph a", 2), ("Timeline", "svg.timeline a", 2)):
        tab_to(page, f"^{view} ")
        page.keyboard.press("Enter")
        page.locator(shapes).first.wait_for()
        assert page.locator(shapes).count() == count
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator("svg.timeline a").first.focus()
    page.keyboard.press("Enter")  # each task of the fold
    page.wait_for_function("() => document.querySelectorAll('svg.timeline a').length === 500")
    assert page.evaluate("document.documentElement.scrollHeight") <= 1600
    page.set_viewport_size({"width": 1280, "height": 800})
    without = open_page(address, java_script_enabled=False)
    without.locator("#tasks .fold summary").click()
    without.get_by_role("link", name="Show these 499").click()
    assert without.locator(ROWS).count() == 500
    page.goto(f"{service.url}/page/runs/{reported.id}")
    for reached in (
        "^Log ",
        "^Graph",
        "^Tests",
        "Restart what failed",
        "Other variables",
        "^Delete",
        "unit",
        "First lines",
    ):
        tab_to(page, reached)
    for reached in ("from", "^Find|find|text", "Raw", "Download", "log$"):
        tab_to(page, reached)
    paths = [f"/page/runs/{many.id}{view}" for view in ("", "?view=graph", "?view=timeline", "?q=nothing", "/delete")]
    paths += [f"/page/runs/{reported.id}{more}" for more in ("", "?view=results", "/restart")]
    (task,) = reported.tasks
    found = f"/page/runs/{reported.id}/tasks/{task}/log/find?step=0&text=broke"
    paths += [found, "/", "/?group=/project/p1", "/page/groups", "/page/store"]
    grounds = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 29)"}
    for path in paths:
        page.set_viewport_size({"width": 1280, "height": 800})
        assert page.goto(service.url + path).status == 200
        for scheme, ground in grounds.items():
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280, path
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    assert page.locator("#live table.status").evaluate("e => e.scrollWidth <= e.parentNode.clientWidth")
    page.goto(service.url + found)  # as high as its one line
    assert page.locator(".log").bounding_box()["height"] < 100
    assert page.problems == []
