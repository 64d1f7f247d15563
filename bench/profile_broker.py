"""Where the broker's time goes under one of the loads of compare.py: its busiest functions and lines.

sampled_broker.py does the sampling. Nothing is counted call by call, so small functions cost what they always
cost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from compare import BATCH, CONNECTIONS, WINDOW
from harness import BENCH, BUILD, MQ9, BenchmarkError, Load, Mq9Broker, mq9_request, run_load


class SampledBroker(Mq9Broker):
    """The broker with the sampler in it."""

    def __init__(self, samples: Path, *, on_disk: bool) -> None:
        super().__init__(on_disk=on_disk)
        self._samples = samples

    def command(self) -> list[str]:
        return [sys.executable, str(BENCH / "sampled_broker.py"), str(self._samples), *super().command()[1:]]


LOADS = ("send", "workers", "readers")


async def _load(broker: Mq9Broker, address: str, name: str, messages: int) -> Load:
    if name == "send":
        subject = f"{MQ9}MSG.SEND.{address}"
        return await run_load(
            broker, "request", subject=subject, window=WINDOW, total=messages, connections=CONNECTIONS
        )
    options: dict[str, object] = {"mailbox": address, "batch": BATCH, "connections": CONNECTIONS}
    if name == "workers":
        return await run_load(broker, "fetch", group="shared", lease_ms=60_000, total=messages, **options)
    return await run_load(
        broker, "fetch", group="own{c}", settle="ack-last", total=messages // CONNECTIONS, **options
    )


def _print_table(title: str, counts: Counter[str], samples: int, rows: int) -> None:
    print(f"\n{title}")
    for name, count in counts.most_common(rows):
        print(f"{count / samples:7.1%}  {name}")


def report(raw: str, rows: int) -> None:
    """Print functions by own and by whole time, and lines by own time, from the sampler's stacks."""
    own, whole, lines = Counter[str](), Counter[str](), Counter[str]()
    samples = 0
    for record in raw.splitlines():
        stack, _, count_text = record.rpartition(" ")
        count = int(count_text)
        frames = stack.split(";")
        functions = [frame.rpartition(":")[0] + ")" for frame in frames]
        samples += count
        own[functions[-1]] += count
        lines[frames[-1]] += count
        for function in set(functions):
            whole[function] += count
    if not samples:
        raise BenchmarkError("no samples: was the broker idle?")
    _print_table("Own time, by function", own, samples, rows)
    _print_table("Whole time, by function", whole, samples, rows)
    _print_table("Own time, by line", lines, samples, rows)


async def profile(name: str, messages: int, rows: int, *, on_disk: bool) -> None:
    """Fill a mailbox, then sample the broker while the load runs."""
    samples = BUILD / f"samples-{os.getpid()}.txt"
    async with SampledBroker(samples, on_disk=on_disk) as broker:
        client = await broker.connect()
        address = str((await mq9_request(client, "MAILBOX.CREATE"))["mail_address"])
        if name != "send":
            await _load(broker, address, "send", messages)
        os.kill(broker.pid, signal.SIGUSR2)
        load = await _load(broker, address, name, messages)
        os.kill(broker.pid, signal.SIGUSR2)
        await client.close()
    report(await asyncio.to_thread(samples.read_text), rows)
    samples.unlink()
    print(f"\n{load.per_second:,.0f} messages/s (sampled), server CPU {load.server_us:.2f} µs a message")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--on-disk", action="store_true", help="with the rocksdb store")
    parser.add_argument("--rows", type=int, default=25)
    arguments = parser.parse_args()
    try:
        asyncio.run(profile(arguments.load, arguments.messages, arguments.rows, on_disk=arguments.on_disk))
    except BenchmarkError as error:
        sys.exit(f"profile failed: {error}")
