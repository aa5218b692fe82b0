"""Tests and coverage that tasks report in what they save: at the end of the run, later, over HTTP, and on the page."""

import json
import urllib.request

CONFIG = """
    runs:
      - name: checks
        tasks:
          - name: unit
            steps:
              - run:
                  name: tests
                  command: |-
                    cat >junit.xml <<'END'
                    <testsuite name="s"><testcase classname="a.B" name="good" time="1.5"/>
                    <testcase classname="a.B" name="bad &lt;b&gt; &#x9b;2J&#x202e;">
                    <failure message="1 != 2&#10;at all">long
                    text</failure></testcase><testcase name="not"><skipped/></testcase></testsuite>
                    END
                    echo '<coverage lines-covered="3" lines-valid="4"/>' >coverage.xml
                    echo '<!DOCTYPE t [<!ENTITY x SYSTEM "file:///etc/passwd">]><testsuite>&x;</testsuite>' >TEST-x.xml
              - save_to_workspace: {contents: [{paths: ["*.xml"]}]}
          - name: package
            depends: [unit]
            steps:
              - restore_workspace: {dest_dir: .}
              - run: cat junit.xml coverage.xml >/dev/null; mkdir out; echo '<pom/>' >out/pom.xml
              - save_to_workspace: {contents: [{paths: ["**"]}]}
          - name: integration
            steps:
              - run: echo '<coverage lines-covered="0" lines-valid="4"/>' >coverage.xml
              - save_to_workspace: {contents: [{paths: ["*.xml"]}]}
"""


def test_what_tasks_report_is_shown_and_goes_with_the_run(tree, wait_for_line):
    tree.configure(CONFIG)
    done = tree.run("run", ".")
    assert done.returncode == 0, done.stdout + done.stderr
    end = done.stdout[done.stdout.index("run 'checks' #1: success") :].splitlines()
    assert end[1:-2] == [
        "tests: 1 failed, 1 passed, 1 skipped (1.5s), coverage: 37.5% of 8 lines",
        "  integration: coverage: 0.0% of 4 lines",
        "  unit: tests: 1 failed, 1 passed, 1 skipped (1.5s), coverage: 75.0% of 4 lines",
        "  ✗ unit: a.B::bad <b> \ufffd2J\ufffd",
        "      | 1 != 2",
        "      | at all",
        "  unit: not read: TEST-x.xml: it has declarations of its own, which may not be in a report",
    ]
    assert tree.run("runs", "show", "last").stdout.splitlines()[-7:] == end[1:-2]
    shown = json.loads(tree.run("runs", "show", "last", "--json").stdout)
    assert shown["tests"]["tests"] == {"total": 3, "failed": 1, "skipped": 1, "seconds": 1.5}

    server = tree.start("serve", "--port", "0", "--no-tokens")
    url = wait_for_line(server, "serving on ")[-1].split()[-1]
    try:
        run_id = shown["run"]["id"]
        with urllib.request.urlopen(f"{url}/api/v1alpha/runs/{run_id}/tests") as answer:
            assert json.load(answer) == shown["tests"]
        assert tree.run("runs", "show", "last", "--url", url).stdout.splitlines()[-7:] == end[1:-2]
        with urllib.request.urlopen(f"{url}/page/runs/{run_id}?view=results") as answer:
            page = answer.read().decode()
        assert "coverage 37.5% of 8 lines" in page
        assert "bad &lt;b&gt;" in page
        assert "<b>" not in page
        links = [part.split('"')[0] for part in page.split('<a href="/api/v1alpha/archives')[1:]]
        assert len(links) == 3
        with urllib.request.urlopen(f"{url}/api/v1alpha/archives{links[0].replace('&amp;', '&')}") as answer:
            assert b"coverage.xml" in answer.read()
        stored = tree.data_dir / "storage/data/workspacearchives"
        assert len(list(stored.rglob("*.reports"))) == 3
        assert tree.run("runs", "delete", run_id, "--yes", "--url", url).returncode == 0
        assert not [path for path in stored.rglob("*") if path.is_file()]
    finally:
        server.terminate()
        server.communicate(timeout=60)


FAILING = """
    runs:
      - name: checks
        tasks:
          - name: unit
            steps:
              - run: >-
                  echo '<testsuite><testcase name="t"><error>boom</error></testcase></testsuite>' >junit.xml;
                  echo the last words; exit 3
              - run: echo never
              - save_to_workspace: {contents: [{paths: ["*.xml"]}], always: true}
              - save_to_workspace: {contents: [{source_dir: none, paths: ["*"]}], always: true}
              - save_to_workspace: {contents: [{paths: ["*.xml"]}]}
          - name: after
            depends: [unit]
            steps: [{run: exit 1}]
"""


def test_reports_are_saved_although_the_tests_failed(tree):
    tree.configure(FAILING)
    done = tree.run("run", ".")
    assert done.returncode == 1
    assert "saved 1 entry to the workspace" in done.stdout
    assert "error: source directory 'none' does not exist" in done.stdout
    assert "never" not in done.stdout.split("run 'checks' #1: ")[0].replace("echo never", "")
    end = done.stdout[done.stdout.index("run 'checks' #1: failed") :].splitlines()
    assert "(exit code 3)" in end[1]
    assert end[2] == "      | the last words"
    assert end[4:-2] == ["tests: 1 failed, 0 passed (0.0s)", "  ✗ unit: t", "      | boom"]
    listed = tree.run("runs", "artifacts", "last")
    assert listed.stdout == "unit: junit.xml\n"
