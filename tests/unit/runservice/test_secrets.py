"""Secrets stand neither in what is stored of a run for everybody, nor in what is read of logs."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agola_core.errors import BadRequestError
from agola_core.executor.masking import masked, patterns_of
from agola_core.runservice.model.types import (
    Container,
    RegistryAuth,
    RunConfig,
    RunConfigTask,
    RunStep,
    Runtime,
    SaveCacheStep,
)
from agola_core.runservice.state.secrets import HIDDEN, MAX_SECRETS, checked, hidden, redacted

SECRET = "correct horse"


def hide(text, *secrets):
    return b"".join(masked([text.encode()], patterns_of(secrets))).decode()


def test_a_configuration_shows_no_secret():
    task = RunConfigTask(
        id="t",
        name="t",
        environment={"A": SECRET, "B": f"x{SECRET}y", "C": "no", "D": "other"},
        steps=[
            RunStep(name=f"login {SECRET}", command=f"login {SECRET}", environment={"S": SECRET}),
            None,
            SaveCacheStep(key="k"),
        ],
        runtime=Runtime(containers=[Container(image="i", environment={"E": SECRET})]),
        docker_registries_auth={"r": RegistryAuth(username="u", password=SECRET, auth=SECRET)},
    )
    config = RunConfig(id="1", environment={"F": SECRET}, static_environment={"G": SECRET}, tasks={"t": task})
    seen = redacted(config, (SECRET, "no"))
    assert SECRET not in repr(seen)
    assert seen.has_secrets
    (shown,) = seen.tasks.values()
    assert shown.environment == {"A": HIDDEN, "B": f"x{HIDDEN}y", "C": HIDDEN, "D": "other"}
    assert (shown.steps[0].name, shown.steps[0].command) == (f"login {HIDDEN}", f"login {HIDDEN}")
    assert shown.steps[1:] == task.steps[1:]
    assert (shown.id, shown.name, shown.docker_registries_auth["r"].username) == ("t", "t", "u")


def test_what_an_executor_says_shows_no_secret():
    assert hidden("the key 'a/bcd' has a '/'", ["a/bcd"]) == f"the key '{HIDDEN}' has a '/'"
    assert hidden(r"no file 'a\nbcd'", ["a\nbcd"]) == f"no file '{HIDDEN}'"
    assert hidden("no line that is first", ["first\nsecond"]) == f"no line that is {HIDDEN}"
    assert hidden("short: abc", ["abc"]) == "short: abc"


def test_what_may_begin_a_secret_is_hidden_while_a_log_goes_on():
    patterns = patterns_of([SECRET])
    assert b"".join(masked([b"a log, correct ho"], patterns, goes_on=True)) == b"a log, **********"
    assert b"".join(masked([b"a log, correct ho"], patterns)) == b"a log, correct ho"


def test_secrets_are_bounded():
    assert checked(["a", "", "b", "a"]) == ("a", "b")
    assert checked([]) == ()
    with pytest.raises(BadRequestError, match="201 secrets; at most 200"):
        checked(map(str, range(MAX_SECRETS + 1)))


def test_logs_show_stars():
    assert hide(f"a {SECRET} b {SECRET}", SECRET) == f"a {'*' * 13} b {'*' * 13}"
    assert hide("yes no", "no") == "yes no"  # too short: it would hide what is none
    assert hide("first line\nsecond", "first line\nsecond") == "*" * 17
    assert hide("+ first line\n+ second\n", "first line\nsecond\n") == f"+ {'*' * 10}\n+ {'*' * 6}\n"
    assert hide("aXXXXXXb", "XXXX") == "a******b"  # wherever one begins
    assert hide("abcdefgh", "abcdef", "efgh") == "*" * 8


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_hidden_wherever_the_secret_stands_in_it(before, encode):
    secret = "p\u00e4ss\u00ff\u00ff??>>word"
    text = encode(f"{before}{secret}:rest".encode()).decode()
    shown = hide(text, secret)
    kept = shown.replace("*", "")
    assert len(kept) <= len(base64.b64encode(before.encode())) + len(base64.b64encode(b":rest")) + 2
    assert "*" * (len(secret.encode()) * 8 // 6 - 2) in shown


texts = st.text("abc\n=", max_size=40).map(str.encode)
secrets = st.lists(st.text("abc\n", max_size=9), max_size=4)


@given(pieces=st.lists(texts, max_size=8), values=secrets)
def test_it_does_not_matter_how_a_log_comes(pieces, values):
    patterns = patterns_of(values)
    whole = b"".join(pieces)
    shown = b"".join(masked(pieces, patterns))
    assert shown == b"".join(masked([whole], patterns))
    assert len(shown) == len(whole)
    assert not any(pattern in shown for pattern in patterns)
    assert all(after in (before, ord("*")) for before, after in zip(whole, shown, strict=True))


@given(pieces=st.lists(texts, max_size=8), values=secrets, offset=st.integers(0, 50))
def test_a_log_read_from_a_place_on_is_the_end_of_the_whole(pieces, values, offset):
    patterns = patterns_of(values)
    whole = b"".join(pieces)
    before = min(offset, len(patterns[0]) - 1) if patterns else 0
    shown = b"".join(masked([whole[offset - before :]], patterns, skip=before))
    assert shown == b"".join(masked([whole], patterns))[offset:]


def test_nothing_waits_that_begins_no_secret():
    pieces = masked([b"some lo", b"", b"cor", b"", b"ner"], patterns_of([SECRET]))
    assert list(pieces) == [b"some lo", b"", b"", b"corner"]


def test_long_secrets_cost_no_more_than_short_ones():
    """A log of one letter, and a secret of many of them: no part of either is looked at again and again."""
    log, patterns = b"a" * 200_000, patterns_of(["a" * 60_000, "b" * 60_000])
    assert max(map(len, patterns)) <= 256
    assert (
        b"".join(masked([log[start : start + 4096] for start in range(0, len(log), 4096)], patterns)) == b"*" * 200_000
    )
    ends = "x" * 300 + "yz"
    assert hide(f"<{ends}>", ends) == f"<{'*' * 302}>"
