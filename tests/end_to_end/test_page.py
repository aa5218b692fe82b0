"""The web page, in a real browser."""

import re
import shutil
import textwrap

import pytest

from agola_core.runconfig import RunContext, parse_config, run_tasks
from agola_core.runservice.model.requests import RunCreateRequest
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


def create(client, text, group="/project/p1/branch/master"):
    config = parse_config(textwrap.dedent(text).encode(), "config.yml")
    (run,) = config.runs
    numbers = iter(range(1000))
    tasks = run_tasks(config, run, RunContext(), lambda: f"{run.name}-{next(numbers)}")
    request = RunCreateRequest(run_config_tasks=tasks, name=run.name, group=group)
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
    assert page.locator("svg.graph a").count() == 3
    assert page.locator("svg.graph path.edge").count() == 2
    assert "exit code 3" in page.locator("#task-gated-2").inner_text()
    page.get_by_role("link", name=re.compile("built <b>")).click()
    page.locator("#L2").wait_for()
    lines = page.locator("#log div span").all_inner_texts()
    assert lines == ["built <b>bold</b>", "red"]
    assert page.locator("#L2 a").get_attribute("href") == "#L2"
    with page.expect_download() as download:
        page.get_by_role("link", name="Raw log").click()
    assert download.value.path().read_bytes() == b"built <b>bold</b>\n\x1b[31mred\x1b[0m\n"
    page.goto(f"{agola_runservice.url}/page/runs/{run.id}")
    page.get_by_role("button", name="Restart all").click()
    page.wait_for_url(lambda url: run.id not in url)
    assert page.problems == []


def test_a_log_is_followed_while_it_grows_and_the_run_is_stopped(agola_runservice, open_page, tmp_path):
    gate = tmp_path / "gate"
    client = agola_runservice.client()
    run = create(
        client,
        f"""
        runs:
          - name: growing
            tasks:
              - name: only
                steps: [{{run: "echo first; until test -e {gate}; do sleep 0.05; done; echo second; sleep 600"}}]
        """,
    )
    page = open_page(f"{agola_runservice.url}/page/runs/{run.id}")
    page.get_by_role("link", name=re.compile("echo first")).click()
    page.locator("#L1 span", has_text="first").wait_for()
    assert page.locator("#L2").count() == 0
    gate.touch()
    page.locator("#L2 span", has_text="second").wait_for()
    page.goto(f"{agola_runservice.url}/page/runs/{run.id}")
    page.get_by_role("button", name="Stop").click()
    page.locator("h1 .state.stopped").wait_for()
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


def test_everything_is_reached_by_keyboard(agola_runservice, open_page):
    create(agola_runservice.client(), GATED)
    page = open_page(agola_runservice.url)
    reached = []
    for _ in range(12):
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


def test_the_store_is_shown_with_plots(agola_runservice, open_page):
    page = open_page(f"{agola_runservice.url}/page/store")
    assert page.locator("figure svg polyline").count() == 4
    assert "Newest WAL" in page.inner_text("main")
    page.locator("code").first.wait_for()
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
