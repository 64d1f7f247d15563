"""No reply leaves before what it tells of is on disk."""

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from mq9_broker.clock import ManualClock
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.shell import group_commit
from mq9_broker.shell.group_commit import GroupCommit
from mq9_broker.shell.shell import Shell
from mq9_broker.store import RocksdbStore, StoreUnavailableError

from .support import START_MS, Broker, Connection, fetch_body


class SlowStore(RocksdbStore):
    """A store whose syncs wait until a test lets them go, and may fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_sync = threading.Semaphore(0)
        self.syncs_begun = 0
        self.syncs_done = 0
        self.error = ""

    def sync(self) -> None:
        if self.is_synced:
            return
        if not self.error:
            super().sync()
        self.syncs_begun += 1
        assert self.may_sync.acquire(timeout=30)
        if self.error:
            self._sync_failed = True
            raise self._failed(OSError(self.error))
        self.syncs_done += 1


class CommittingBroker(Broker):
    """A shell under test whose replies wait for the disk."""

    def __init__(self, store: RocksdbStore) -> None:
        self.clock = ManualClock(START_MS)
        self.engine = Engine(store, EngineLimits())
        self.shell = Shell(self.engine, self.clock)
        loop = asyncio.get_running_loop()
        self.commit = GroupCommit(store, loop)
        self.shell.start(loop, self.commit.send)
        self._connection = Connection()
        self._number = 0


async def until(condition: Any) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not happen")


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    return SlowStore(tmp_path / "store")


async def test_replies_of_all_connections_wait_for_one_sync(store: SlowStore) -> None:
    broker = CommittingBroker(store)
    connections = [broker.connection() for _ in range(10)]
    (create,) = broker.send_requests(connections[0], ("MAILBOX.CREATE", {"name": "box"}))
    for connection in connections[1:]:
        broker.send_requests(connection, ("MSG.SEND.box", b"x"), ("MSG.SEND.box", b"y"))
    await until(lambda: store.syncs_begun == 1)
    await asyncio.sleep(0.05)
    assert not any(connection.replies for connection in connections)
    store.may_sync.release()
    await connections[0].reply(create)
    assert [len(connection.replies) for connection in connections] == [1] + 9 * [2]
    assert all(connection.writes == 1 for connection in connections)
    assert store.syncs_done == 1
    broker.commit.close()


async def test_the_next_group_forms_while_a_sync_runs(store: SlowStore) -> None:
    broker = CommittingBroker(store)
    first, second = broker.connection(), broker.connection()
    broker.send_requests(first, ("MAILBOX.CREATE", {"name": "box"}))
    await until(lambda: store.syncs_begun == 1)
    late = broker.send_requests(second, ("MSG.SEND.box", b"x"))
    late += broker.send_requests(second, ("MSG.SEND.box", b"y"))
    store.may_sync.release()
    await until(lambda: first.replies)
    await until(lambda: store.syncs_begun == 2)
    assert not second.replies, "the sync may have begun before it was written"
    store.may_sync.release()
    await second.reply(late[-1])
    assert second.order == late
    assert store.syncs_done == 2
    broker.commit.close()


async def test_a_read_waits_for_what_it_shows(store: SlowStore) -> None:
    broker = CommittingBroker(store)
    writer, reader = broker.connection(), broker.connection()
    broker.send_requests(writer, ("MAILBOX.CREATE", {"name": "box"}), ("MSG.SEND.box", b"x"))
    (query,) = broker.send_requests(reader, ("MSG.QUERY.box", b""))
    await until(lambda: store.syncs_begun == 1)
    assert not reader.replies
    store.may_sync.release()
    assert len((await reader.reply(query))["messages"]) == 1
    (again,) = broker.send_requests(reader, ("MSG.QUERY.box", b""))
    assert again in reader.replies, "all is on disk"
    broker.commit.close()


async def test_a_fetch_that_waits_is_answered_when_its_message_is_on_disk(store: SlowStore) -> None:
    broker = CommittingBroker(store)
    store.may_sync.release()
    waiting, sender = broker.connection(), broker.connection()
    await sender.reply(broker.send_requests(sender, ("MAILBOX.CREATE", {"name": "box"}))[0])
    fetch = broker.wait(waiting, "box", "g", lease_ms=1000)
    broker.send_requests(sender, ("MSG.SEND.box", b"x"))
    await asyncio.sleep(0.05)
    assert not waiting.replies
    store.may_sync.release()
    assert len((await waiting.reply(fetch))["messages"]) == 1
    broker.commit.close()


async def test_after_a_failed_sync_nobody_is_told_that_nothing_was_done(store: SlowStore) -> None:
    """`unavailable` would say so, and let clients try again what is perhaps in the log."""
    broker = CommittingBroker(store)
    client = broker.connection()
    store.error = "the disk is broken"
    store.may_sync.release()
    (create,) = broker.send_requests(client, ("MAILBOX.CREATE", {"name": "box"}))
    failed = await client.reply(create)
    assert failed["code"] == "internal"
    assert failed["error"] == (
        "internal error: the disk did not take what was written; whether this was carried out is not known"
    )
    (send,) = broker.send_requests(client, ("MSG.SEND.box", b"x"))
    store.may_sync.release()
    assert (await client.reply(send))["code"] == "unavailable", "this one was refused before"
    store.error = ""
    store.may_sync.release(10)
    assert store.recover()
    broker.shell.store_recovered()
    (again,) = broker.send_requests(client, ("MSG.SEND.box", b"x"))
    assert (await client.reply(again))["msg_id"] == 0, "the mailbox was in the log"
    broker.commit.close()


async def test_what_is_held_is_bounded(store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MOST_HELD", 1000)
    broker = CommittingBroker(store)
    client = broker.connection()
    broker.send_requests(client, ("MAILBOX.CREATE", {"name": "box"}))
    await until(lambda: store.syncs_begun == 1)
    store.may_sync.release(10)
    sent = [broker.send_requests(client, ("MSG.SEND.box", b"x"))[0] for _ in range(100)]
    assert len(client.replies) > 50, "the loop itself waited for the disk"
    await client.reply(sent[-1])
    assert client.order[1:] == sent
    broker.commit.close()


class CuttingStore(RocksdbStore):
    """Knows how much of its log has certainly reached the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.folder = path
        self.on_disk: dict[str, int] = {}

    def logs(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.folder.glob("*.log")}

    def sync(self) -> None:
        before = self.logs()
        super().sync()
        self.on_disk = before


async def test_a_log_cut_at_the_last_synced_byte_has_all_that_was_answered(tmp_path: Path) -> None:
    store = CuttingStore(tmp_path / "store")
    broker = CommittingBroker(store)
    clients = [broker.connection() for _ in range(4)]
    await clients[0].reply(broker.send_requests(clients[0], ("MAILBOX.CREATE", {"name": "box"}))[0])
    sent: dict[bytes, bytes] = {}
    cuts = 0
    for turn in range(300):
        client = clients[turn % 4]
        payload = b"%d " % turn * (turn % 50 + 1)
        for reply_to in broker.send_requests(client, ("MSG.SEND.box", payload)):
            sent[reply_to] = payload
        if turn % 3 == 0:
            await asyncio.sleep(0.001)
        if turn % 60 == 59:
            # Power is lost: what was not synced is gone.
            copy = tmp_path / f"cut-{turn}"
            answered = {
                reply["msg_id"]: sent[reply_to]
                for connection in clients
                for reply_to, reply in connection.replies.items()
                if reply_to in sent
            }
            on_disk = dict(store.on_disk)
            shutil.copytree(store.folder, copy)
            for log in copy.glob("*.log"):
                kept = on_disk.get(log.name, 0)
                cuts += log.stat().st_size > kept
                with log.open("r+b") as file:
                    file.truncate(kept)
            after = RocksdbStore(copy)
            recovered = Broker(Engine(after, EngineLimits()))
            for msg_id, expected in answered.items():
                found = recovered.ok("MSG.QUERY.box", {"from_id": msg_id, "limit": 1})["messages"][0]
                assert (found["msg_id"], len(found["payload"]) * 3 // 4 - found["payload"].count("=")) == (
                    msg_id,
                    len(expected),
                )
            after.close()
    assert cuts, "the log was never longer than what was synced: this test shows nothing"
    broker.commit.close()


async def test_a_leased_fetch_that_could_not_be_written_leaves_nothing_leased(tmp_path: Path) -> None:
    class Failing(RocksdbStore):
        fails = False

        def write(self, batch: Any) -> None:
            if self.fails:
                raise StoreUnavailableError("no")
            super().write(batch)

    store = Failing(tmp_path / "store")
    broker = Broker(Engine(store, EngineLimits()))
    broker.create("box")
    broker.send("box")
    store.fails = True
    body = fetch_body("g", lease_ms=60_000, max_wait_ms=0) | {"deliver": "earliest"}
    assert broker.ask("MSG.FETCH.box", body)["code"] == "unavailable"
    assert broker.ask("MSG.SEND.box", b"y")["code"] == "unavailable"
    assert len(broker.ok("MSG.QUERY.box")["messages"]) == 1, "reads go on"
    store.fails = False
    assert [m["msg_id"] for m in broker.ok("MSG.FETCH.box", body)["messages"]] == [0]
    assert broker.send("box") == 1
    store.close()
