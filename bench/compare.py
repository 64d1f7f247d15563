"""Side by side: the mq9 broker and a real nats-server with JetStream, the same generator, the same minutes.

`make bench` runs it: rounds of short measurements, the two servers taking turns, medians at the end. Where
other processes or the hypervisor took more than a tenth of a core from a round another one is added, up to
three times as many as are wanted; those that least was taken from count. The exit status is 1 when a figure
misses its target. `--write` puts the results into bench/results/ and README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import defaultdict
from dataclasses import dataclass

import flat
import report
from harness import (
    MOST_REPEATS,
    MQ9,
    QUIET,
    BenchmarkError,
    Load,
    Mq9Broker,
    NatsServer,
    Series,
    compile_generator,
    machine_facts,
    mq9_request,
    run_load,
)
from nats.js.api import AckPolicy, ConsumerConfig, StorageType

CONNECTIONS = 4
WINDOW = 64
BATCH = 100
PAYLOAD_BYTES = 128
STREAM = "BENCH"


@dataclass(frozen=True)
class Comparison:
    """One line of the table: how it is called, and how much faster mq9 must be."""

    key: str
    title: str
    target: float


def comparisons(fetch_target: float) -> tuple[Comparison, ...]:
    return (
        Comparison("send", f"SEND, window {WINDOW}, against publish with ack", 1.0),
        Comparison(
            "workers",
            f"FETCH {BATCH} + ACK, four workers of one group under leases, against one pull consumer",
            fetch_target,
        ),
        Comparison(
            "readers",
            f"FETCH {BATCH} + ACK, four groups without leases, against four pull consumers",
            fetch_target,
        ),
    )


@dataclass(frozen=True)
class Part:
    """Where both systems keep their messages, and what is asked of mq9 then."""

    key: str
    title: str
    on_disk: bool
    comparisons: tuple[Comparison, ...]


PARTS = (
    Part("compare", "in memory", False, comparisons(2.0)),
    Part("compare_file", "on disk", True, comparisons(1.5)),
)


async def measure_jetstream(server: NatsServer, messages: int, *, on_disk: bool) -> dict[str, Load]:
    """One turn of nats-server: publish, one shared consumer, a consumer for each fetcher."""
    common = {"connections": CONNECTIONS, "size": PAYLOAD_BYTES, "total": messages}
    client = await server.connect()
    try:
        stream = client.jetstream()
        storage = StorageType.FILE if on_disk else StorageType.MEMORY
        await stream.add_stream(name=STREAM, subjects=["bench.>"], storage=storage)
        loads = {
            "send": await run_load(
                server, "request", subject="bench.box", window=WINDOW, id_field="seq", **common
            )
        }
        for key, consumer in (("workers", "shared"), ("readers", "own{c}")):
            names = sorted({consumer.replace("{c}", str(number)) for number in range(CONNECTIONS)})
            total = messages if key == "workers" else messages // CONNECTIONS
            for name in names:
                config = ConsumerConfig(
                    durable_name=name, ack_policy=AckPolicy.ALL, max_ack_pending=-1, mem_storage=not on_disk
                )
                await stream.add_consumer(STREAM, config)
            load = await run_load(
                server, "fetch", stream=STREAM, consumer=consumer, batch=BATCH, **(common | {"total": total})
            )
            for name in names:
                state = await stream.consumer_info(STREAM, name)
                # A fetcher may have been handed part of one more batch when the last message counted arrived.
                left = (state.num_pending or 0) + (state.num_ack_pending or 0)
                if key == "workers" and left:
                    raise BenchmarkError(f"JetStream consumer {name}: {left} messages not acknowledged")
                await stream.delete_consumer(STREAM, name)
            loads[key] = load
        await stream.delete_stream(STREAM)
        return loads
    finally:
        await client.close()


async def measure_mq9(server: Mq9Broker, messages: int) -> dict[str, Load]:
    """One turn of the mq9 broker: the same three loads."""
    common = {"connections": CONNECTIONS, "size": PAYLOAD_BYTES, "total": messages}
    client = await server.connect()
    try:
        address = str((await mq9_request(client, "MAILBOX.CREATE", {}))["mail_address"])
        subject = f"{MQ9}MSG.SEND.{address}"
        loads = {
            "send": await run_load(
                server, "request", subject=subject, window=WINDOW, id_field="msg_id", **common
            )
        }
        loads["workers"] = await run_load(
            server,
            "fetch",
            mailbox=address,
            group="shared",
            lease_ms=60_000,
            settle="ack-ids",
            batch=BATCH,
            **common,
        )
        common["total"] = messages // CONNECTIONS
        loads["readers"] = await run_load(
            server, "fetch", mailbox=address, group="own{c}", settle="ack-last", batch=BATCH, **common
        )
        state = (await mq9_request(client, f"MAILBOX.INFO.{address}"))["mailbox"]
        expected = {"shared": 0} | {
            f"own{number}": messages - messages // CONNECTIONS for number in range(CONNECTIONS)
        }
        for group in state["groups"]:
            if group["leased"] or group["pending"] != expected[group["group_name"]]:
                raise BenchmarkError(f"mq9 group not as acknowledged: {group}")
        await mq9_request(client, f"MAILBOX.DELETE.{address}")
        return loads
    finally:
        await client.close()


@dataclass(frozen=True)
class Round:
    """Both systems, one after the other: the loads of each by their keys."""

    loads: dict[str, dict[str, Load]]

    @property
    def disturbance(self) -> float:
        """Cores that other processes and the hypervisor took from it."""
        found = [load for loads in self.loads.values() for load in loads.values()]
        return sum(load.others_share + load.stolen_share for load in found) / len(found)


async def measure_rounds(part: Part, rounds: int, messages: int) -> tuple[list[Round], dict[str, float]]:
    """Interleaved rounds after one warm-up, and the memory that each system has then.

    Who goes first changes every round. Rounds are added until so many are quiet, but no more than
    `MOST_REPEATS` times as many as are wanted.
    """
    measured: list[Round] = []
    async with NatsServer() as jetstream, Mq9Broker(on_disk=part.on_disk) as mq9:
        await measure_jetstream(jetstream, messages // 10, on_disk=part.on_disk)
        await measure_mq9(mq9, messages // 10)
        quiet = 0
        while quiet < rounds and len(measured) < MOST_REPEATS * rounds:
            loads: dict[str, dict[str, Load]] = {}
            order = ("jetstream", "mq9") if len(measured) % 2 == 0 else ("mq9", "jetstream")
            for system in order:
                if system == "mq9":
                    loads[system] = await measure_mq9(mq9, messages)
                else:
                    loads[system] = await measure_jetstream(jetstream, messages, on_disk=part.on_disk)
            measured.append(Round(loads))
            quiet += measured[-1].disturbance <= QUIET
            print(f"{part.title}: round {len(measured)} done, {quiet} of {rounds} quiet", file=sys.stderr)
        return measured, {"jetstream": jetstream.resident_mb(), "mq9": mq9.resident_mb()}


async def compare(part: Part, rounds: int, messages: int) -> dict[str, object]:
    """Measure, and leave out the rounds from which most was taken, whatever came out of them."""
    series: dict[str, dict[str, dict[str, Series]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(Series))
    )
    measured, resident = await measure_rounds(part, rounds, messages)
    kept = sorted(measured, key=lambda each: each.disturbance)[:rounds]
    for each in kept:
        for system, loads in each.loads.items():
            for key, load in loads.items():
                figures = series[key][system]
                figures["per_second"].values.append(load.per_second)
                figures["server_us"].values.append(load.server_us)
                figures["server_share"].values.append(load.server_share)
                figures["generator_share"].values.append(load.generator_share)
                figures["others_share"].values.append(load.others_share)
                figures["stolen_share"].values.append(load.stolen_share)
                latency = "latency" if key == "send" else "cycle"
                for percentile in ("p50_ms", "p99_ms"):
                    figures[percentile].values.append(load.figures[f"{latency}_{percentile}"])
    results: dict[str, object] = {}
    for comparison in part.comparisons:
        both = series[comparison.key]
        ratio = both["mq9"]["per_second"].median / both["jetstream"]["per_second"].median
        results[comparison.key] = {
            "title": comparison.title,
            "target": comparison.target,
            "ratio": ratio,
            "cpu_ratio": both["jetstream"]["server_us"].median / both["mq9"]["server_us"].median,
            "met": ratio >= comparison.target,
            "systems": {
                system: {name: values.values for name, values in figures.items()}
                for system, figures in both.items()
            },
        }
    return {
        "rounds": rounds,
        "measured": len(measured),
        "messages": messages,
        "resident_mb": resident,
        "comparisons": results,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="quiet rounds that are wanted (default 5)")
    parser.add_argument(
        "--messages", type=int, default=400_000, help="messages a measurement (default 400000)"
    )
    names = [part.key for part in PARTS]
    parser.add_argument("--only", choices=[*names, "flat"], help="leave the other parts out")
    parser.add_argument(
        "--flat-on-disk", action="store_true", help="flat part: with the rocksdb store; not for --write"
    )
    parser.add_argument(
        "--flat-count", type=int, default=1_000_000, help="messages in the way (default 1000000)"
    )
    parser.add_argument("--cases", default="", help="flat part: only the cases whose name contains this")
    parser.add_argument(
        "--write", action="store_true", help="write bench/results/ and the tables in bench/README.md"
    )
    return parser.parse_args()


async def main() -> int:
    arguments = parse_arguments()
    compile_generator()
    facts = await machine_facts()
    results: dict[str, object] = {"machine": facts}
    for part in PARTS:
        if arguments.only in (None, part.key):
            results[part.key] = await compare(part, arguments.rounds, arguments.messages)
    if arguments.only in (None, "flat"):
        results["flat"] = await flat.measure(
            arguments.flat_count, arguments.cases, on_disk=arguments.flat_on_disk
        )
    tables = report.render(results)
    print("\n\n".join(tables.values()))
    if arguments.write:
        report.write(results, tables)
    missed = report.missed(results)
    for line in missed:
        print(f"MISSED: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except BenchmarkError as error:
        sys.exit(f"benchmark failed: {error}")
