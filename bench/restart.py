"""How long a broker with a million messages on disk takes to be ready again after kill -9.

Fills a mailbox, leases and acknowledges some of it, kills the broker, and starts it again on the same folder,
several times. The start of the process itself, on an empty folder, stands beside it. Exit code 1 above the
target.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from harness import MQ9, BenchmarkError, Mq9Broker, compile_generator, mq9_request, run_load

TARGET_S = 2.0


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def start(data: Path) -> tuple[float, float]:
    """Start a broker, kill it when it is ready; return wall and CPU seconds until then."""
    broker = Mq9Broker(options=["--data", str(data), "--store", "rocksdb"])
    began = time.monotonic()
    async with broker:
        figures = time.monotonic() - began, cpu_s(broker.pid)
        os.kill(broker.pid, signal.SIGKILL)
    return figures


async def fill(data: Path, messages: int) -> None:
    async with Mq9Broker(options=["--data", str(data), "--store", "rocksdb"]) as broker:
        client = await broker.connect()
        await mq9_request(client, "MAILBOX.CREATE", {"name": "box"})
        await run_load(
            broker, "request", subject=f"{MQ9}MSG.SEND.box", window=64, total=messages, connections=4
        )
        fetches = {"mailbox": "box", "group": "g", "lease_ms": 43_200_000, "batch": 100, "connections": 4}
        for settle in ("ack-ids", "none"):
            await run_load(broker, "fetch", total=messages // 10, settle=settle, **fetches)
        await client.close()
        os.kill(broker.pid, signal.SIGKILL)


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--messages", type=int, default=1_000_000, help="messages in the store (default 1000000)"
    )
    parser.add_argument("--times", type=int, default=5, help="restarts (default 5)")
    arguments = parser.parse_args()
    compile_generator()
    with tempfile.TemporaryDirectory(prefix="mq9-restart-") as folder:
        empty = [await start(Path(folder) / "empty") for _ in range(arguments.times)]
        await fill(Path(folder) / "full", arguments.messages)
        full = [await start(Path(folder) / "full") for _ in range(arguments.times)]
    for title, figures in (
        ("empty", empty),
        (f"{arguments.messages:,} messages, 1st after the load", full[:1]),
    ):
        wall, cpu = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{title:44} ready after {wall:.2f} s, CPU {cpu:.2f} s")
    wall, cpu = (statistics.median(column) for column in zip(*full, strict=True))
    print(f"{f'{arguments.messages:,} messages, median of all':44} ready after {wall:.2f} s, CPU {cpu:.2f} s")
    return 0 if max(wall for wall, _ in full) <= TARGET_S else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except BenchmarkError as error:
        sys.exit(f"benchmark failed: {error}")
