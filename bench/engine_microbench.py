"""CPU time of the engine alone, without network: SEND in batches, FETCH 100 and its ACK, over both stores.

Usage: python bench/engine_microbench.py [memory|rocksdb] [seconds a case]
"""

import sys
import tempfile
import time
from pathlib import Path

from mq9_broker._generated.commands import MailboxCreate, MsgAck, MsgFetch
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.engine.commands import SendOptions
from mq9_broker.store import MemoryStore, RocksdbStore, Store

BOX = b"bench.box"
PAYLOAD = b"x" * 128
BATCH = 64


def report(name: str, count: int, seconds: float) -> None:
    print(f"{name:<42} {1e6 * seconds / count:8.2f} us   {count / seconds:12,.0f}/s")


def bench_send(
    engine: Engine, name: str, options: SendOptions | None, headers: bytes, duration: float
) -> None:
    command = (BOX, 2, headers, PAYLOAD, options)
    sent = 0
    now = engine.time_ms
    start = time.thread_time()
    while (passed := time.thread_time() - start) < duration:
        now += 1
        engine.apply(now, [command] * BATCH)
        sent += BATCH
    report(name, sent, passed)


def bench_fetch(engine: Engine, group: str, lease_ms: int, name: str, duration: float) -> None:
    fetch = MsgFetch(BOX, group, "earliest", num_msgs=100, lease_ms=lease_ms)
    now = engine.time_ms
    engine.apply(now, [MsgFetch(BOX, group, "earliest", num_msgs=1)])
    batches = 0
    start = time.thread_time()
    while (passed := time.thread_time() - start) < duration:
        now += 1
        found = engine.look(now, fetch)
        effect = found or engine.apply(now, [fetch]).results[0][1][-1]
        ids = effect.msg_ids  # type: ignore[union-attr]
        if len(ids) < 100:
            break
        engine.apply(now, [MsgAck(BOX, group, None, ids)])
        batches += 1
    report(name, batches, passed)


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else "memory"
    duration = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    with tempfile.TemporaryDirectory() as folder:
        store: Store = MemoryStore() if kind == "memory" else RocksdbStore(Path(folder) / "data")
        engine = Engine(store, EngineLimits())
        engine.apply(1_000_000, [MailboxCreate(BOX)])
        bench_send(engine, f"{kind}: SEND, plain, {BATCH} a batch", None, b"", duration)
        bench_send(engine, f"{kind}: SEND with headers", None, b'{"traceparent":["00-1-2-01"]}', duration / 4)
        bench_fetch(engine, "leased", 30_000, f"{kind}: FETCH 100 + ACK, leased", duration)
        bench_fetch(engine, "unleased", 0, f"{kind}: FETCH 100 + ACK, no lease", duration)
        bench_send(engine, f"{kind}: SEND with ttl", SendOptions(ttl_s=3600), b"", duration / 4)
        bench_send(engine, f"{kind}: SEND with one key", SendOptions(key="k"), b"", duration / 4)
        for number in (1, 2):
            options = SendOptions(dedup_id=f"id-{number}")
            bench_send(engine, f"{kind}: SEND, repeated dedup-id", options, b"", duration / 8)
        store.close()


if __name__ == "__main__":
    main()
