"""Keys of caches: templates are Go's, take no time to refuse, and no two cache groups share a key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agola_core.errors import BadRequestError, NotFoundError
from agola_core.executor.cache_keys import expand_key, stored_key
from agola_core.runservice.model.object_paths import MAX_CACHE_KEY_BYTES, cache, cache_owner

UUID = "8c5e4b8a-1111-4f0e-9d2f-0123456789ab"


def read(name):
    if name != "lock":
        raise NotFoundError(f"{name!r} does not exist")
    return iter([b"a", b"b"])


def expand(template):
    return expand_key(template, read=read, environment={"A": "x"}, arch="amd64", clock=lambda: 86400.5)


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("plain }} text", "plain }} text"),
        ('deps-{{ md5sum "lock" }}', "deps-187ef4436122d1cc2f40dc2b92f0eba0"),
        ('{{os}}-{{ arch }}-{{ env `A` }}-{{env "B"}}', "linux-amd64-x-"),
        ("{{ year }}-{{ month }}-{{ day }}-{{ unixtime }}", "1970-1-2-86400500000000"),
        ("a {{- os -}} b", "alinuxb"),
        ("{{ os\n}}", "linux"),
    ],
)
def test_templates_are_expanded(template, key):
    assert expand(template) == key


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{" + " " * 4000, "cannot understand"),
        ("{{ " * 1300, "cannot understand"),
        ("{{ os " + " " * 4000, "cannot understand"),
        ("{{ env " + '"\\' * 1900, "cannot understand"),
        ("{{ os " * 600 + "}}", "cannot understand"),
        ("x" * 4097, "4097 characters; at most 4096"),
        ("a{{ os", "cannot understand '{{ os'"),
        ("{{ }}", "cannot understand"),
        ("{{ shell `id` }}", "unknown function"),
        ("{{ os `x` }}", "unknown function or wrong argument"),
        ("{{ env }}", "unknown function or wrong argument"),
        ("{{ md5sum `none` }}", "'none' does not exist"),
    ],
    ids=range(12),
)
def test_bad_templates_are_refused_at_once(template, reason):
    with pytest.raises(BadRequestError, match=reason):
        expand(template)


def test_the_groups_of_agola_keep_their_names():
    assert cache_owner(UUID) == UUID
    assert cache_owner("p1") == "p1"
    assert cache_owner("acme-prod") == "=acme=2Dprod"
    assert cache_owner(UUID[:8]) == f"={UUID[:8]}"
    assert cache_owner("a" * 200).startswith("=h")


words = st.one_of(
    st.text("acmeprod-=2D8", max_size=12),
    st.text(max_size=150),
    st.sampled_from(["team-" + "x" * 100 + "33", " dfcce25f0c1965bcf747a6249ea6658db9f178"]),
    st.sampled_from([UUID, UUID[:8], UUID[:9], f"{UUID}-{UUID}", f"{UUID}-x", "acme", "acme-prod"]),
)


@given(one=words, other=words)
def test_no_two_groups_share_a_key(one, other):
    """Neither exactly nor as a beginning, which is how caches are looked up."""
    if one != other:
        first, second = f"{cache_owner(one)}-", f"{cache_owner(other)}-"
        assert not first.startswith(second)
        assert not second.startswith(first)


@given(group=words)
def test_every_group_leaves_room_for_keys_that_storage_holds(group):
    owner = cache_owner(group)
    assert len(owner) <= MAX_CACHE_KEY_BYTES // 2
    assert cache(f"{owner}-deps")


def test_branch_names_and_long_keys_can_be_stored():
    assert stored_key("deps-feature/login", 100) == "deps-feature%2Flogin"
    assert stored_key("deps-feature/login", 100).startswith(stored_key("deps-feature/", 100))
    long = stored_key("ü" * 300, 150)
    assert len(long.encode()) <= 150
    assert long.startswith("ü" * 60)
    assert long != stored_key("ü" * 299, 150)
    with pytest.raises(BadRequestError, match="character that keys cannot have"):
        stored_key("a\0b", 100)
