"""How fast the registry is with 100,000 agents: REGISTER, DISCOVER by words and by meaning, a restart, and
SEND beside it.

    .venv/bin/python bench/registry_speed.py [--write] [--agents 100000] [--corpus ../shared/corpus]

A running broker with a data folder, and a client in another process. Agents are the cards of the corpus,
each many times, with another name and one more word. Multilingual vectors are made of titles, descriptions,
tags and skills, once for equal ones, so the wait for them is that for 5,000 different cards. Searches and
SENDs are measured in parts of two seconds, more of them where the hypervisor took more than a tenth of a
core; those that it took least from count. The exit status is 1 when a figure misses its target. `--write`
puts the results into bench/results/ and README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import report
import uvloop
from harness import MOST_REPEATS, MQ9, QUIET, Mq9Broker, machine_cpu_s, machine_facts
from nats.aio.client import Client
from registry_quality import CORPUS, load

WINDOW = 256
LONGEST_WAIT_S = 180.0
# Seconds of a measurement that are repeated where the hypervisor took too much away.
PART_S = 2.0


class Figure(NamedTuple):
    """A measured number.

    Attributes:
        label: What it is.
        value: The number.
        unit: Its unit.
        target: The most that is wanted; None: nothing in particular.
    """

    label: str
    value: float
    unit: str
    target: float | None = None

    @property
    def is_met(self) -> bool:
        return self.target is None or self.value <= self.target


class Broker(Mq9Broker):
    """With a data folder that outlives it, and its HTTP port."""

    def __init__(self, data: Path) -> None:
        super().__init__(test_clock=True)
        self._data = data

    def command(self) -> list[str]:
        command = super().command()
        place = command.index("--store")
        command[place : place + 2] = ["--data", str(self._data)]
        command.remove("--test-clock")
        return command

    def metric(self, name: str) -> float:
        """A number of /metrics; 0 if it is not there."""
        with urllib.request.urlopen(f"http://{self._http}/metrics", timeout=60) as reply:
            for line in reply.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[1])
        return 0.0


class Bench:
    """The figures so far, and how they are taken.

    Attributes:
        figures: In the order they were measured in.
    """

    def __init__(self, options: argparse.Namespace, data: Path) -> None:
        cards, labelled = load(options.corpus)
        self._bodies = [json.loads(body) for body in cards.values()]
        self._queries = [query["query"] for query in labelled]
        self._keywords = [query["query"] for query in labelled if query["kind"] == "keyword"]
        self._agents: int = options.agents
        self._seconds: float = options.seconds
        self._data = data
        self.figures: list[Figure] = []

    def add(self, label: str, value: float, unit: str, target: float | None = None) -> None:
        """Note a figure, and print it."""
        figure = Figure(label, value, unit, target)
        self.figures.append(figure)
        print(" | ".join(cells(figure)), flush=True)

    def add_times(self, label: str, seconds: list[float], p50: float | None, p99: float | None) -> None:
        """Note the median and the 99th percentile of some times."""
        for name, share, target in (("p50", 0.5, p50), ("p99", 0.99, p99)):
            self.add(f"{label}, {name}", float(np.quantile(seconds, share)) * 1000, "ms", target)

    async def run(self) -> None:
        """Measure everything, in order."""
        async with connected(self._data) as (broker, client):
            empty = broker.resident_mb()
            await self._register(client)
            await self._see_changes(client, broker)
            asking, sending = await PlainClient.connect(broker), await PlainClient.connect(broker)
            await self._search(asking, broker)
            await self._send_beside(asking, sending)
            memory = broker.metric("mq9_search_resident_memory_bytes")
            self.add("memory of the search process", memory / 2**20, "MB")
            self.add("that for an agent", memory / self._agents, "bytes")
            mine = (broker.resident_mb() - empty) * 2**20
            self.add("memory of the broker itself for an agent", mine / self._agents, "bytes")
            await self._search_while_embedding(client, asking, broker)
            asking.close()
            sending.close()
        await self._restart("restart until the first search is answered")
        shutil.rmtree(self._data / "search")
        await self._restart("the same without what was kept of the index", by_meaning=False)

    async def _register(self, client: Client) -> None:
        await ask(client, "MAILBOX.CREATE", {"name": "bench"})
        free = asyncio.Semaphore(WINDOW)

        async def register(number: int) -> None:
            card = self._bodies[number % len(self._bodies)]
            async with free:
                body = {**card, "name": f"{card['name']}-{number}", "version": f"v{number}"}
                await ask(client, "AGENT.REGISTER", body)

        began = time.perf_counter()
        await asyncio.gather(*(register(number) for number in range(self._agents)))
        self.add(f"REGISTER of {self._agents:,}", time.perf_counter() - began, "s", 60)
        await ask(client, "AGENT.DISCOVER", {"text": f"v{self._agents - 1}"})
        self.add("the same, until a search has seen them all", time.perf_counter() - began, "s", 60)
        began = time.perf_counter()
        await ask(client, "AGENT.DISCOVER", {"semantic": "maps"})
        self.add("the first search by meaning after that", time.perf_counter() - began, "s")

    async def _see_changes(self, client: Client, broker: Broker) -> None:
        """A registration, a report and a removal are there in the next answer."""
        found: list[float] = []
        for number in range(50):
            name, word = f"seen-{number}", f"quagga{number}"
            began = time.perf_counter()
            await ask(client, "AGENT.REGISTER", {"name": name, "payload": word})
            await expect(client, {"text": word}, [name])
            found.append(time.perf_counter() - began)
            await ask(client, "AGENT.REPORT", {"name": name, "report_info": "busy"})
            (meta,) = await expect(client, {"text": word}, [name])
            assert meta["status"] == {"report_info": "busy"}, meta
            await expect(client, {"semantic": word, "limit": 1}, [name])
            await ask(client, "AGENT.UNREGISTER", {"name": name})
            await expect(client, {"text": word}, [])
        self.add_times("REGISTER and the search that finds it", found, None, None)
        began = time.perf_counter()
        while broker.metric("mq9_search_waiting_agents") and time.perf_counter() - began < LONGEST_WAIT_S:  # noqa: ASYNC110
            await asyncio.sleep(1)
        self.add("multilingual vectors made in the background after", time.perf_counter() - began, "s")
        self.add("agents without one then", broker.metric("mq9_search_waiting_agents"), "", 0)

    async def _search(self, client: PlainClient, broker: Broker) -> None:
        # What is still sorted and kept on the disk belongs to the registrations.
        self.add("until broker and search process rest", await at_rest(broker), "s")
        for field, asked, p50 in (("text", self._keywords, 5), ("semantic", self._queries, 10)):
            await storm(client, asked, field, 1)
            measure = functools.partial(storm, client, asked, field)
            self.add_times(f"DISCOVER {field}", await quietest(measure, self._seconds), p50, 25)
        assert broker.metric("mq9_search_process_restarts_total") == 0

    async def _send_beside(self, client: PlainClient, other: PlainClient) -> None:
        alone = await quietest(functools.partial(sends, other), self._seconds)
        self.add_times("SEND alone", alone, None, None)
        for field in ("text", "semantic"):

            async def measure(seconds: float, field: str = field) -> Times:
                searches = storm(client, self._queries, field, seconds)
                return (await asyncio.gather(searches, sends(other, seconds)))[1]

            beside = await quietest(measure, self._seconds)
            self.add_times(f"SEND during a storm of searches by {field}", beside, None, None)

    async def _search_while_embedding(self, client: Client, asking: PlainClient, broker: Broker) -> None:
        """Searches beside agents that get their multilingual vectors."""
        for number in range(2000):
            payload = f"takes care of case {number} of {number * 7}"
            await ask(client, "AGENT.REGISTER", {"name": f"later-{number}", "payload": payload})
        await asyncio.sleep(2.5)
        found = await storm(asking, self._queries, "semantic", self._seconds)
        left = broker.metric("mq9_search_waiting_agents")
        self.add_times(f"DISCOVER semantic while vectors are made ({left:,.0f} left)", found, None, None)

    async def _restart(self, label: str, by_meaning: bool = True) -> None:
        began = time.perf_counter()
        async with connected(self._data) as (_, client):
            await ask(client, "AGENT.DISCOVER", {"text": f"v{self._agents - 1}"})
            self.add(label, time.perf_counter() - began, "s", 10)
            if by_meaning:
                await ask(client, "AGENT.DISCOVER", {"semantic": "maps"})
                self.add("until the first by meaning is", time.perf_counter() - began, "s", 10)


@contextlib.asynccontextmanager
async def connected(data: Path) -> AsyncIterator[tuple[Broker, Client]]:
    """A broker on a folder, and a client."""
    async with Broker(data) as broker:
        client = await broker.connect()
        yield broker, client
        await client.close()


async def request(client: Client, subject: str, body: object) -> dict[str, object]:
    """A reply, which has to be a success."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = json.loads((await client.request(f"{MQ9}{subject}", data, timeout=300)).data)
    if reply["error"]:
        raise SystemExit(f"registry_speed: {subject}: {reply}")
    return dict(reply)


async def ask(client: Client, subject: str, body: object) -> float:
    """Seconds of one request that has to succeed."""
    began = time.perf_counter()
    reply = await client.request(
        f"{MQ9}{subject}", body if isinstance(body, bytes) else json.dumps(body).encode(), timeout=300
    )
    seconds = time.perf_counter() - began
    if not reply.data.startswith(b'{"error":""'):
        raise SystemExit(f"registry_speed: {subject}: {reply.data[:200]!r}")
    return seconds


class PlainClient:
    """Speaks the few lines needed: a client library would take a good part of the time that is measured."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, broker: Broker) -> PlainClient:
        """Connect to a broker."""
        host, _, port = broker.host_port.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
        options = b'{"verbose":false,"pedantic":false,"headers":true,"no_responders":true}'
        writer.write(b"CONNECT %b\r\nSUB plain.* 1\r\nPING\r\n" % options)
        while await reader.readline() != b"PONG\r\n":
            pass
        return cls(reader, writer)

    async def ask(self, subject: str, body: bytes) -> float:
        """Seconds of one request that has to succeed."""
        began = time.perf_counter()
        self._writer.write(b"PUB %b plain.1 %d\r\n%b\r\n" % (f"{MQ9}{subject}".encode(), len(body), body))
        while (line := await self._reader.readline()) == b"PING\r\n":
            self._writer.write(b"PONG\r\n")
        if not line.startswith(b"MSG plain.1 1 "):
            raise SystemExit(f"registry_speed: {subject}: {line!r}")
        reply = await self._reader.readexactly(int(line.split()[-1]) + 2)
        seconds = time.perf_counter() - began
        if not reply.startswith(b'{"error":""'):
            raise SystemExit(f"registry_speed: {subject}: {reply[:200]!r}")
        return seconds

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


async def expect(client: Client, query: dict[str, object], names: list[str]) -> list[dict[str, object]]:
    """The meta of what a search finds, which has to be these."""
    reply = await request(client, "AGENT.DISCOVER", query)
    agents, meta = reply["agents"], reply["meta"]
    assert isinstance(agents, list)
    assert isinstance(meta, list)
    found = [agent["name"] for agent in agents]
    if found != names:
        raise SystemExit(f"registry_speed: {query} found {found}, not {names}")
    return meta


Times = list[float]


async def quietest(measure: Callable[[float], Awaitable[Times]], seconds: float) -> Times:
    """Measure again while the hypervisor takes much away; return the times of the parts it took least from.

    Args:
        measure: Takes how many seconds to measure, and returns times.
        seconds: How long what is returned has been measured.
    """
    count = max(1, round(seconds / PART_S))
    parts: list[tuple[float, Times]] = []
    quiet = 0
    while quiet < count and len(parts) < MOST_REPEATS * count:
        before = machine_cpu_s()[1]
        times = await measure(seconds / count)
        taken = (machine_cpu_s()[1] - before) / (seconds / count)
        parts.append((taken, times))
        quiet += taken <= QUIET
    parts.sort(key=lambda part: part[0])
    return [time for _, times in parts[:count] for time in times]


async def storm(client: PlainClient, queries: list[str], field: str, seconds: float) -> Times:
    """Ask one query after the other."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        question = json.dumps({field: queries[len(found) % len(queries)]}).encode()
        found.append(await client.ask("AGENT.DISCOVER", question))
    return found


async def at_rest(broker: Broker) -> float:
    """Wait until the broker and its search process do nothing for two seconds; return how long that took."""
    began = time.perf_counter()
    pid = broker.pid
    while time.perf_counter() - began < LONGEST_WAIT_S:
        before = _processor_s(pid)
        await asyncio.sleep(2)
        if _processor_s(pid) - before < 0.05:  # seconds
            break
    return time.perf_counter() - began


def _processor_s(pid: int) -> float:
    """The processor time of a process and its children."""
    seconds = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return seconds / os.sysconf("SC_CLK_TCK") + sum(map(_processor_s, map(int, children)))


async def sends(client: PlainClient, seconds: float) -> Times:
    """Send one message after the other."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        found.append(await client.ask("MSG.SEND.bench", b"x" * 128))
    return found


def cells(figure: Figure) -> list[str]:
    """A figure as a row of a table."""
    digits = 0 if figure.value >= 100 or figure.unit in ("bytes", "") else 2 if figure.unit == "ms" else 1
    target = "" if figure.target is None else f"{figure.target:g} {figure.unit}".strip()
    met = "" if figure.target is None else "met" if figure.is_met else "MISSED"
    return [figure.label, f"{figure.value:,.{digits}f} {figure.unit}".strip(), target, met]


def main() -> int:
    """Measure, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="default: ../shared/corpus")
    parser.add_argument("--agents", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument(
        "--write", action="store_true", help="put the results into bench/results and README.md"
    )
    options = parser.parse_args()
    began, load_before = time.perf_counter(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="mq9-bench-") as folder:
        bench = Bench(options, Path(folder) / "data")
        uvloop.run(bench.run())
    lines = [
        f"Load of the machine before it began: {load_before:.1f}.",
        "",
        "| | | target | |",
        "|---|---|---|---|",
        *("| " + " | ".join(cells(figure)) + " |" for figure in bench.figures),
    ]
    print(f"all of it in {time.perf_counter() - began:.0f} s")
    if options.write:
        facts = asyncio.run(machine_facts())
        values = {figure.label: figure._asdict() for figure in bench.figures}
        report.write({"machine": facts, "registry_speed": values}, {"registry_speed": "\n".join(lines)})
    missed = [figure for figure in bench.figures if not figure.is_met]
    for figure in missed:
        print("MISSED", " | ".join(cells(figure)), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
