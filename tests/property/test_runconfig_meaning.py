"""What Agola reads over does not change what a configuration means, whatever the configuration."""

import json

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agola_core.runconfig import FindingKind, parse_config
from tests.support.runconfigs import runs_of

CONTEXT = {"branch": "main", "ref": "refs/heads/main", "variables": {"V": "v"}}
UNKNOWN = st.sampled_from(["x-note", "descripton", "runz", "volumez", "Ümlaut", "0"])

words = st.text("abcdefg é😀-/0", min_size=1, max_size=8).map(str.strip).filter(bool)
values = words | st.just({"from_variable": "V"})
environments = st.dictionaries(words, values, max_size=2)
patterns = st.sampled_from(["main", "/^ma/", "#.*#", "/[a-z]+$/", "dev", "//"])
conditions = patterns | st.lists(patterns, max_size=2) | st.fixed_dictionaries({}, optional={"include": patterns})
whens = st.fixed_dictionaries({}, optional={"branch": conditions, "tag": conditions, "ref": conditions})
contents = st.lists(
    st.fixed_dictionaries({}, optional={"source_dir": words, "dest_dir": words, "paths": st.lists(words, max_size=2)}),
    max_size=2,
)
long_steps = st.one_of(
    st.fixed_dictionaries({"type": st.just("clone")}),
    st.fixed_dictionaries(
        {"type": st.just("run"), "command": words},
        optional={"name": words, "environment": environments, "working_dir": words, "shell": words, "user": words},
    ),
    st.fixed_dictionaries({"type": st.just("save_to_workspace")}, optional={"contents": contents}),
    st.fixed_dictionaries({"type": st.just("restore_workspace")}, optional={"dest_dir": words}),
    st.fixed_dictionaries({"type": st.just("save_cache"), "key": words}, optional={"contents": contents}),
    st.fixed_dictionaries({"type": st.just("restore_cache"), "keys": st.lists(words, min_size=1, max_size=2)}),
)
containers = st.fixed_dictionaries(
    {"image": words}, optional={"environment": environments, "privileged": st.booleans(), "entrypoint": words}
)
runtimes = st.fixed_dictionaries({"containers": st.lists(containers, min_size=1, max_size=2)})
tasks = st.fixed_dictionaries(
    {"runtime": runtimes, "steps": st.lists(long_steps, max_size=3)},
    optional={
        "environment": environments,
        "working_dir": words,
        "shell": words,
        "when": whens,
        "ignore_failure": st.booleans(),
        "approval": st.booleans(),
    },
)


@st.composite
def documents(draw):
    """A configuration in its plainest form."""
    made = draw(st.lists(tasks, min_size=1, max_size=3))
    for index, task in enumerate(made):
        task["name"] = f"task {index}"
        if index and draw(st.booleans()):
            task["depends"] = [f"task {index - 1}"]
    run = {"name": "run", "tasks": made}
    if draw(st.booleans()):
        run["when"] = draw(whens)
    return {"runs": [run]}


def as_json(value):
    """Return JSON without surrogates, which YAML does not know as escapes."""
    return json.dumps(value, ensure_ascii=False)


def meaning(text):
    config = parse_config(text.encode(), "c")
    assert all(finding.kind is FindingKind.WARNING for finding in config.findings)
    return runs_of(config, CONTEXT)


def short_form(document):
    for run in document["runs"]:
        for task in run["tasks"]:
            task["steps"] = [{step.pop("type"): step or None} for step in task["steps"]]
    return document


RECORDS = ("runs", "tasks", "runtime", "containers", "steps", "contents")


def rewritten(node, draw, key=""):
    """Return a document's text with what Agola reads over: unknown keys, other cases, nulls and earlier equal keys."""
    if isinstance(node, list):
        return "[" + ", ".join(rewritten(item, draw, key) for item in node) + "]"
    if not isinstance(node, dict):
        return as_json(node)
    entries = []
    for name, value in node.items():
        written = rewritten(value, draw, name if name in RECORDS else "")
        if key or "runs" in node:
            match draw(st.integers(0, 9)):
                case 0:
                    entries.append(f"{as_json(draw(UNKNOWN))}: {draw(st.sampled_from(['1', '[a, {b: c}]', '~']))}")
                case 1:
                    entries.append(f"{as_json(name)}: [anything, {{at: all}}]")  # the last one counts
                case 2 if name != "type":
                    name = draw(st.sampled_from([name.upper(), name.title()]))  # noqa: PLW2901
        entries.append(f"{as_json(name)}: {written}")
    return "{" + ", ".join(entries) + "}"


@settings(max_examples=150, deadline=None)
@given(documents(), st.data())
def test_what_is_read_over_changes_nothing(document, data):
    plain = meaning(as_json(document))
    assert meaning(yaml.safe_dump(document, allow_unicode=True)) == plain
    assert meaning(rewritten(document, data.draw)) == plain
    assert meaning(as_json(short_form(document))) == plain
