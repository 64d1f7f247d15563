"""Same commands in the same order: same replies, same effects, same bytes in the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mq9_broker._generated.commands import MsgAck
from mq9_broker.engine import Engine
from mq9_broker.engine.commands import AckRun, decode_command, encode_command
from mq9_broker.store import MemoryStore, RocksdbStore, Store

from . import replay as replay_module
from .random_commands import random_calls
from .replay import LIMITS, Output, dump, everything, replay

COMMANDS = 10_000


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
def test_engine_restored_in_another_process_goes_on_alike(kind: str, tmp_path: Path) -> None:
    calls = random_calls(seed=4, total=COMMANDS)
    assert sum(len(forms) for _, forms in calls) == COMMANDS
    middle = len(calls) // 2
    store: Store = RocksdbStore(tmp_path / "first") if kind == "rocksdb" else MemoryStore()
    engine = Engine(store, LIMITS)
    replay(engine, calls[:middle])
    copy = tmp_path / "copy"
    if kind == "rocksdb":
        # What another process would find after this one was killed: files only, nothing of this process.
        shutil.copytree(tmp_path / "first", copy, ignore=shutil.ignore_patterns("LOCK"))
    else:
        dump(store, copy)
    (tmp_path / "calls").write_bytes(msgspec.msgpack.encode(calls[middle:]))
    expected = replay(engine, calls[middle:])

    subprocess.run(
        [sys.executable, replay_module.__file__, kind, copy, tmp_path / "calls", tmp_path / "output"],
        check=True,
        timeout=100,
        # The other process does everything in Python.
        env={**os.environ, "PYTHONHASHSEED": "4711", "MQ9_PURE": "1"},
    )
    restored: Output = msgspec.msgpack.decode((tmp_path / "output").read_bytes(), type=Output)
    for number, (came_out, came_out_restored) in enumerate(zip(expected, restored[0], strict=True)):
        assert came_out == came_out_restored, f"call {middle + number}"
    assert restored[1] == everything(store)
    replies = [reply for came_out, _ in expected for reply in came_out]
    # The commands really did something: most succeeded, and messages were delivered.
    assert sum(b'"error":""' in reply for reply in replies) > len(replies) // 2
    assert sum(b'"lease_id"' in reply for reply in replies) > 100
    store.close()


def test_caches_change_nothing(tmp_path: Path) -> None:
    """One engine all along against a new one for every call, and over another store."""
    calls = random_calls(seed=5, total=3_000)
    warm, cold, on_disk = MemoryStore(), MemoryStore(), RocksdbStore(tmp_path / "data")
    expected = replay(Engine(warm, LIMITS), calls)
    assert [came_out for call in calls for came_out in replay(Engine(cold, LIMITS), [call])] == expected
    assert replay(Engine(on_disk, LIMITS), calls) == expected
    assert everything(warm) == everything(cold) == everything(on_disk)
    on_disk.close()


def test_an_ack_of_consecutive_ids_is_the_same_in_both_forms() -> None:
    """`AckRun` as the shell has it, `MsgAck` as a log keeps it."""
    calls = random_calls(seed=7, total=3_000)
    as_runs, spelled_out = MemoryStore(), MemoryStore()
    runs = 0
    engines = Engine(as_runs, LIMITS), Engine(spelled_out, LIMITS)
    for now, forms in calls:
        commands = [decode_command(form) for form in forms]
        for at, command in enumerate(commands):
            if isinstance(command, MsgAck):
                first, last = min(command.msg_ids), max(command.msg_ids)
                commands[at] = AckRun(command.address, command.group_name, first, last)
                assert decode_command(encode_command(commands[at])) == commands[at].spelled_out()
                runs += 1
        spelled = [command.spelled_out() if isinstance(command, AckRun) else command for command in commands]
        assert engines[0].apply(now, commands) == engines[1].apply(now, spelled)
    assert runs > 100
    assert everything(as_runs) == everything(spelled_out)


def test_byte_form_of_commands() -> None:
    forms = [form for _, forms in random_calls(seed=6, total=2_000) for form in forms]
    assert [encode_command(decode_command(form)) for form in forms] == forms
    for bad in (b"", b"\x02" + forms[0][1:], forms[0][:-1], b"\x01\x91\xa3abc", b"\x01\x90", b"\x01\xc0"):
        with pytest.raises(ValueError, match=r".+"):
            decode_command(bad)
