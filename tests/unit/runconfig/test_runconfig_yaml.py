"""YAML as Agola 0.2's library takes it, warnings for what is ignored, and documents made to do harm."""

import pytest

from agola_core.errors import ConfigError
from agola_core.runconfig import FindingKind, RunContext, parse_config, run_tasks
from agola_core.runconfig.yaml.scalars import as_text, resolve

MINIMAL = "runs: [{name: r, tasks: [{name: t, runtime: {containers: [{image: b}]}, steps: [{run: x}]}]}]\n"


def findings_of(text):
    return [str(finding) for finding in parse_config(text.encode(), "c.yml").findings]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True),
        ("N", False),
        ("on", True),
        ("~", None),
        ("0x10", 16),
        ("010", 8),
        ("08", 8.0),
        ("1_000", 1000),
        ("0b11", 3),
        ("1e3", "1e3"),
        ("1e+3", 1000.0),
        (".5", 0.5),
        ("1:30", "1:30"),
        ("2019-07-01", "2019-07-01"),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("-9223372036854775808", -(2**63)),
        ("é", "é"),
    ],
)
def test_a_plain_scalar(text, value):
    assert resolve("", text) == value
    assert type(resolve("", text)) is type(value)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.1, "1.1"),
        (3.14159265, "3.1415927"),
        (1e6, "1e+06"),
        (999999.0, "999999"),
        (0.00001, "1e-05"),
        (1e300, "+Inf"),
    ],
)
def test_a_number_where_text_is_wanted(number, text):
    assert as_text(number) == text


def test_numbers_that_are_too_long_are_text():
    for text in ("0x" + "f" * 400_000, "1:" * 200_000 + "1", "1" * 400_000, "0" * 400_000 + "9"):
        assert isinstance(resolve("", text), str | float)
        assert not findings_of(MINIMAL + f"x-{text[:3]}: {text}\n")[1:]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "&a ["])
def test_what_is_very_deep_is_refused(opening):
    with pytest.raises(ConfigError, match=r"too deep|not YAML"):
        parse_config(opening.encode() * 100_000, "c")


def test_what_is_deep_is_read():
    assert findings_of(MINIMAL + "x: " + "[" * 450 + "]" * 450)


def test_aliases_that_would_be_very_many_are_refused():
    text = "x0: &x0 [a, a]\n" + "".join(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]\n" for n in range(1, 40))
    with pytest.raises(ConfigError, match="too large"):
        parse_config((text + MINIMAL).encode(), "c")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (MINIMAL + "version: v0", "c.yml:2: version: version is ignored: no Agola reads it"),
        (MINIMAL + "rums: []", "c.yml:2: rums: unknown key 'rums' is ignored; did you mean 'runs'?"),
        ("runs: []\n" + MINIMAL, "c.yml:2: key 'runs' stands twice: the last one counts, the others are ignored"),
        (MINIMAL + "---\na: 1", "c.yml:2: this document is ignored: only the first one is read"),
        (
            MINIMAL.replace("image: b", "image: b, user: 010"),
            "user: 010 is read as '8'; put it in quotes to keep it as it is written",
        ),
        (MINIMAL.replace("{containers", "{architecture: arm, containers"), "is ignored; did you mean 'arch'?"),
        (MINIMAL.replace("{run: x}", "{run: {command: x, tty: true}}"), "tty is ignored"),
        (MINIMAL.replace("{run: x}", "{run: {command: x, when: {branch: b}}}"), "the condition of a step is ignored"),
        (MINIMAL.replace("{run: x}", "{clone: {depth: 1}}"), "depth is ignored"),
        (MINIMAL.replace("name: t,", "name: t, when: {branches: b},"), "this condition never holds"),
        ("runs: [{name: r}]", "c.yml:1: runs[0]: run 'r' has no tasks: it can be read, but not made"),
        (MINIMAL.replace("name: t,", "name: t, task_timeout_interval: soon,"), "'soon' is no duration, and is ignored"),
        (MINIMAL.replace("image: b", "image: b, volumes: [{path: /v}]"), "a volume is ignored: it is no tmpfs"),
    ],
)
def test_what_is_ignored_is_a_warning(text, warning):
    found = parse_config(text.encode(), "c.yml").findings
    assert [finding for finding in found if finding.kind is FindingKind.WARNING]
    assert warning in "\n".join(map(str, found))


def test_findings_are_kept_when_an_error_ends_the_reading():
    findings = []
    with pytest.raises(ConfigError):
        parse_config(b"rums: []\n", "c.yml", findings=findings)
    assert "did you mean 'runs'?" in str(findings[0])


def test_a_file_that_agola_takes_whole_has_nothing_to_say():
    assert not findings_of(MINIMAL)


def test_utf_16_and_a_mark_are_read():
    for encoding in ("utf-8-sig", "utf-16"):
        assert parse_config(MINIMAL.encode(encoding), "c").runs[0].name == "r"


def test_bytes_that_are_no_text():
    for data in (b"\xff\xfe\x00", b"a: \xc3", b"\x00", b"a: \x07"):
        with pytest.raises(ConfigError):
            parse_config(data, "c")


def test_newer_fields_have_their_meaning():
    text = (
        "task_timeout_interval: 1h30m\n"
        "runs: [{name: r, tasks: [{name: a}, {name: b, task_timeout_interval: 5000000000}, {name: c, timeout: 7}, "
        "{name: d, runtime: {containers: [{image: i, volumes: [{path: /v, tmpfs: {size: 1.5Ki}}, "
        "{path: /w, tmpfs: {}}]}]}}]}]"
    )
    config = parse_config(text.encode(), "c")
    names = iter("abcd")
    tasks = run_tasks(config, config.runs[0], RunContext(), lambda: next(names))
    assert [tasks[name].timeout for name in "abcd"] == [5400, 5, 7, 5400]
    volumes = tasks["d"].runtime.containers[0].volumes
    assert [(volume.path, volume.tmpfs.size) for volume in volumes] == [("/v", 1536), ("/w", 0)]
