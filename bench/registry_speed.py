"""How fast the registry is with 100,000 agents: REGISTER, DISCOVER by words and by meaning, a restart, and
SEND beside it.

    .venv/bin/python bench/registry_speed.py [--agents 100000] [--wait-for-vectors] [--corpus
    ../shared/corpus]

A running broker with a data folder. Agents are the cards of the corpus, each many times, with another name
and one more word. Without `--wait-for-vectors` the multilingual vectors are still being made, which takes
minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from harness import Mq9Broker
from nats.aio.client import Client
from registry_quality import CORPUS, load

WINDOW = 256


class Broker(Mq9Broker):
    """With a data folder and its HTTP port."""

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


async def ask(client: Client, subject: str, body: object, timeout: float = 300) -> float:
    """Seconds of one request that has to succeed."""
    began = time.perf_counter()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = await client.request(f"$mq9.AI.{subject}", data, timeout=timeout)
    seconds = time.perf_counter() - began
    if json.loads(reply.data)["error"]:
        raise SystemExit(f"registry_speed: {subject}: {reply.data[:200]!r}")
    return seconds


def told(label: str, seconds: list[float]) -> None:
    """Print percentiles in milliseconds."""
    p50, p99 = np.quantile(np.array(seconds) * 1000, (0.5, 0.99))
    print(f"{label}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {len(seconds)} requests", flush=True)


async def storm(client: Client, queries: list[str], field: str, seconds: float) -> list[float]:
    """Ask one query after the other."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        found.append(await ask(client, "AGENT.DISCOVER", {field: queries[len(found) % len(queries)]}))
    return found


async def sends(client: Client, seconds: float) -> list[float]:
    """Send one message after the other."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        found.append(await ask(client, "MSG.SEND.bench", b"x" * 128))
    return found


async def measure(options: argparse.Namespace, data: Path) -> None:
    """Everything, in order."""
    cards, labelled = load(options.corpus)
    bodies = [json.loads(body) for body in cards.values()]
    queries = [query["query"] for query in labelled]
    keywords = [query["query"] for query in labelled if query["kind"] == "keyword"]
    async with Broker(data) as broker:
        client, other = await broker.connect(), await broker.connect()
        await ask(client, "MAILBOX.CREATE", {"name": "bench"})
        began = time.perf_counter()
        free = asyncio.Semaphore(WINDOW)

        async def register(number: int) -> None:
            card = bodies[number % len(bodies)]
            async with free:
                body = {**card, "name": f"{card['name']}-{number}", "version": f"v{number}"}
                await ask(client, "AGENT.REGISTER", body)

        await asyncio.gather(*(register(number) for number in range(options.agents)))
        print(f"REGISTER of {options.agents:,}: {time.perf_counter() - began:.1f} s", flush=True)
        seen = await ask(client, "AGENT.DISCOVER", {"text": f"v{options.agents - 1}"})
        print(f"the first search after that: {seen:.1f} s", flush=True)
        print(
            f"the first by meaning: {await ask(client, 'AGENT.DISCOVER', {'semantic': 'maps'}):.1f} s",
            flush=True,
        )
        # The number is another process's: it has to be asked for.
        while options.wait_for_vectors and broker.metric("mq9_search_waiting_agents"):  # noqa: ASYNC110
            await asyncio.sleep(2)
        print(f"multilingual vectors to make: {broker.metric('mq9_search_waiting_agents'):,.0f}", flush=True)
        for field, asked in (("text", keywords), ("semantic", queries)):
            await storm(client, asked, field, 1)
            told(f"DISCOVER {field}", await storm(client, asked, field, options.seconds))
        told("SEND alone", await sends(other, options.seconds))
        _, beside = await asyncio.gather(
            storm(client, queries, "semantic", options.seconds), sends(other, options.seconds)
        )
        told("SEND during a storm of searches", beside)
        memory = broker.metric("mq9_search_resident_memory_bytes")
        print(f"search process: {memory / 2**20:,.0f} MB, {memory / options.agents:,.0f} bytes an agent")
        await client.close()
        await other.close()
    began = time.perf_counter()
    async with Broker(data) as broker:
        client = await broker.connect()
        await ask(client, "AGENT.DISCOVER", {"text": "v1"})
        print(f"restart until the first search is answered: {time.perf_counter() - began:.1f} s", flush=True)
        await client.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="default: ../shared/corpus")
    parser.add_argument("--agents", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--wait-for-vectors", action="store_true", help="measure when all vectors are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mq9-bench-") as folder:
        asyncio.run(measure(options, Path(folder) / "data"))


if __name__ == "__main__":
    main()
