"""A process that opens a store, applies calls to it and writes down what came out.

Usage: python replay.py memory|rocksdb STORE CALLS OUTPUT [FIRST_CALL]

STORE is a RocksDB folder, or the file of a memory store (MessagePack pairs, see `dump`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.engine.commands import decode_command
from mq9_broker.store import Batch, MemoryStore, RocksdbStore, Store

Calls = list[tuple[int, list[bytes]]]
Output = tuple[list[tuple[list[bytes], str]], list[tuple[bytes, bytes]]]
"""(replies and effects of each call, the store's contents)."""

LIMITS = EngineLimits(max_messages=300, max_reply=20_000)


def everything(store: Store) -> list[tuple[bytes, bytes]]:
    return list(store.scan(b"", b"\xff" * 8))


def dump(store: Store, path: Path) -> None:
    path.write_bytes(msgspec.msgpack.encode(everything(store)))


def load(path: Path) -> MemoryStore:
    store = MemoryStore()
    if path.exists():
        pairs = msgspec.msgpack.decode(path.read_bytes(), type=list[tuple[bytes, bytes]])
        store.write(Batch((), pairs))
    return store


def replay(engine: Engine, calls: Calls) -> list[tuple[list[bytes], str]]:
    came_out = []
    for now, forms in calls:
        applied = engine.apply(now, [decode_command(form) for form in forms])
        effects = [effects for _, effects in applied.results]
        came_out.append(([reply for reply, _ in applied.results], f"{applied.timer_effects} {effects}"))
    return came_out


def main() -> None:
    kind, where, calls_path, output_path = sys.argv[1:5]
    store: Store = RocksdbStore(Path(where)) if kind == "rocksdb" else load(Path(where))
    calls = msgspec.msgpack.decode(Path(calls_path).read_bytes(), type=Calls)
    came_out = replay(Engine(store, LIMITS), calls)
    Path(output_path).write_bytes(msgspec.msgpack.encode((came_out, everything(store))))
    store.close()


if __name__ == "__main__":
    main()
