"""The library for asyncio and trio: the same outcomes, cancellation, back-pressure, and endless iterators that end."""

from __future__ import annotations

import io
import threading

import anyio
import anyio.lowlevel
import pytest

from agola_core import BadRequestError, ConflictError, Delete, FencedError, NotFoundError, Put, aio
from agola_core.aio.iteration import arriving
from agola_core.datamanager import DataManager
from agola_core.events import AppendCondition, Event, EventStore, Query

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


async def test_objects(tmp_path):
    async with aio.open(tmp_path, data_types=["note"]) as store:
        token = await store.change_groups_token(["notes"])
        token = await store.write_wal([Put("note", "a", b"1"), Put("note", "b", b"2")], token)
        with pytest.raises(ConflictError):
            await store.write_wal([Delete("note", "a")], await_stale(token))
        assert (await store.read_object("note", "a"))[0] == b"1"
        assert (await store.get("note", "a"), await store.get("note", "c", b"-")) == (b"1", b"-")
        assert await store.exists("note", "a")
        version = (await store.entry("note", "a")).version
        verdicts = await store.write_wals([[Put("note", "a", b"1", expected=version)]] * 2)
        assert isinstance(verdicts[1], ConflictError)
        assert await store.update("note", "b", lambda old: old + b"0") == b"20"
        assert await store.update("note", "b", lambda old: b"2") == b"2"
        assert await store.list_objects("note", backwards=True).to_list() == [("b", b"2"), ("a", b"1")]
        assert await store.list_objects("note", prefix="a").to_list() == [("a", b"1")]
        assert [item async for item in store.list_objects("note")] == [("a", b"1"), ("b", b"2")]
        assert [change.data async for change in store.history("note", "b")] == [b"2", b"20", b"2"]
        with pytest.raises(NotFoundError):
            await store.read_object("note", "c")
        assert await store.checkpoint(force=True)
        assert await store.verify() == []
        await store.export(file := io.BytesIO())
        assert file.getvalue()
    async with aio.open(tmp_path) as store:
        assert await store.list_objects("note", start_after="a").to_list() == [("b", b"2")]


def await_stale(token):
    """Return the token of a writer that has seen the group before its last change."""
    return type(token)(token.revision, dict.fromkeys(token.groups, 0), token.lineage, token.sequence)


async def test_writers_that_wait_together_share_transactions(tmp_path):
    async with aio.open(tmp_path, data_types=["note"]) as store:
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(store.write_wal, [Put("note", str(number), b"")])
        assert len(await store.list_objects("note").to_list()) == 200


async def test_events(tmp_path):
    async with aio.open_events(tmp_path) as store:
        for number in range(1, 301):
            event = Event("Counted", b"%d" % number, tags=["counter:1"])
            assert await store.append([event], stream="counter-1", expected_version=number - 1) == number
        with pytest.raises(ConflictError):
            await store.append([Event("Counted")], stream="counter-1", expected_version=5)
        stream = await store.read_stream("counter-1", after=10)
        assert stream.version == 300
        assert [event.version async for event in stream] == list(range(11, 301))
        found = await store.read(Query(tags=["counter:1"]), limit=2, backwards=True)
        assert [event.position for event in await found.to_list()] == [300, 299]
        found = await store.read(Query(tags=["counter:1"]))
        condition = AppendCondition(Query(tags=["counter:1"]), after=await found.head())
        await store.append([Event("Ended", tags=["counter:1"])], condition=condition)
        with pytest.raises(ConflictError):
            await store.append([Event("Ended")], condition=condition)
        assert await store.version("counter-1") == 300
        assert await store.head() == 301


async def test_a_subscription_catches_up_and_goes_on(tmp_path):
    async with aio.open_events(tmp_path) as store:
        for _ in range(3):
            await store.append([Event("Before")])
        seen = []
        async with store.subscribe(after=1) as events:
            async for event in events:
                seen.append((event.position, event.type))
                if event.position == 3:
                    await store.append([Event("After")])
                if event.position == 4:
                    break
        assert seen == [(2, "Before"), (3, "Before"), (4, "After")]


async def test_a_reader_that_is_cancelled_while_it_waits_loses_nothing(tmp_path):
    async with aio.open_events(tmp_path) as store, store.subscribe(after=0) as events:
        for expected in ("A", "B"):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(events)
            assert scope.cancelled_caught
            await store.append([Event(expected)])
            assert (await anext(events)).type == expected


async def test_a_cancelled_subscription_leaves_no_thread(tmp_path):
    async with aio.open_events(tmp_path) as store:
        before = threading.active_count()
        entered = anyio.Event()

        async def follow():
            async with store.subscribe(after=0) as events:
                entered.set()
                async for _ in events:
                    pytest.fail("there are no events")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await entered.wait()
            tasks.cancel_scope.cancel()
    assert threading.active_count() <= before + 1  # idle workers stay for the next call


async def test_an_error_of_the_source_is_the_readers(tmp_path):
    class Source:
        def __iter__(self):
            yield 1
            raise FencedError("imported")

        def close(self):
            pass

    seen = []

    async def collect():
        async with arriving(Source()) as items:
            async for item in items:
                seen.append(item)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(FencedError, match="imported"):
        await collect()
    assert seen == [1]


async def test_a_readers_error_is_its_own(tmp_path):
    async with aio.open_events(tmp_path) as store:
        await store.append([Event("A")])

        async def fail():
            async with store.subscribe(after=0) as events:
                async for _ in events:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()


async def test_a_source_is_ahead_by_one_item(tmp_path):
    asked = []
    closed = threading.Event()

    class Source:
        def __iter__(self):
            for number in range(100):
                asked.append(number)
                yield number
            closed.wait()

        def close(self):
            closed.set()

    async with arriving(Source()) as items:
        for expected in range(5):
            assert await anext(items) == expected
            assert len(asked) <= expected + 2


async def test_a_write_that_is_cancelled_is_done_or_not_begun(tmp_path):
    async with aio.open(tmp_path, data_types=["note"]) as store:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.write_wal([Put("note", "a", b"")])
        assert scope.cancelled_caught
        assert await store.list_objects("note").to_list() == []


async def test_watch(tmp_path):
    async with aio.open(tmp_path, data_types=["note"]) as store, store.watch() as wals:
        await store.write_wal([Put("note", "a", b"")])
        assert (await anext(wals)).actions == (Put("note", "a", b""),)


async def test_a_wrong_argument_is_told_as_by_the_store(tmp_path):
    with pytest.raises(NotFoundError):
        async with aio.open(tmp_path / "none"):
            pass


async def test_one_of_a_group_reads_and_another_takes_over(tmp_path):
    async with aio.open_events(tmp_path) as store:
        await store.append([Event("A"), Event("B"), Event("C")])
        async with store.consume("mailer") as first:
            with pytest.raises(BadRequestError, match="nothing to acknowledge"):
                await first.ack()
            assert (await anext(first)).position == 1
            await first.ack()
            assert (await anext(first)).position == 2
            async with store.consume("mailer") as second, anyio.create_task_group() as tasks:
                tasks.start_soon(anext, second)  # waits for its turn, and is cancelled in it
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert await store.append([Event("Sent")], by=first.wrapped) == 4
            assert await store.marked("mailer") == 1  # though its thread has read on
        with pytest.raises(FencedError):
            await store.append([Event("Sent")], by=first.wrapped)
        with anyio.CancelScope() as scope:
            async with store.consume("mailer", Query(["B", "Sent"])) as third:
                event = await anext(third)
                await third.ack(event)
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        assert event.position == 2
        async with store.consume("mailer") as fourth:  # the cancelled one has let it go
            assert (await anext(fourth)).position == 3
            mark = await store.mark("mailer", 3)
            await store.append([Event("Sent")], along=[mark], by=fourth.wrapped)
        assert await store.marked("mailer") == 3


def test_what_the_core_has_is_here_too():
    """What an application calls is awaited under the same name, but for what has no asynchronous form."""

    def methods(kind):
        return {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}

    synchronous = {"close", "mapping", "snapshot"}  # and what other layers of the library call:
    synchronous |= {"append_events", "append_mark", "counters", "event_index", "wait_for_change", "wake_waiting"}
    synchronous |= {"clean_up", "export_stream", "start_background_tasks", "stop_background_tasks"}
    assert methods(DataManager) - methods(aio.AsyncDataManager) - {"subscribe"} == synchronous
    assert methods(EventStore) - methods(aio.AsyncEventStore) == {"close"}
