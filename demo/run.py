"""Runs the demo: starts a broker and agents as processes, lets them work, kills one, checks the outcome.

Exit code 0: every result equals a direct computation, the order was kept, and the killed worker's task was
taken over by its colleague.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

import mq9

ROOT = Path(__file__).resolve().parent.parent
TEXT_SUFFIXES = {".md", ".txt", ".rst", ".yaml", ".py"}
MOST_DOCUMENTS = 12
LARGEST_DOCUMENT = 600_000  # bytes, of those found in a folder
LARGEST_FILE = 8_000_000  # bytes, of one that was named
VICTIM_TASK = 4  # the agent that begins this task is killed, or the one with the last if there are fewer
THINK_MS = 250  # that each task takes, so that people can follow, and one can be killed in the middle
MAILBOX = "demo.counters"
COLOURS = ["yellow", "green", "blue", "magenta", "bright_red", "bright_cyan"]


@dataclass(frozen=True)
class Agent:
    """A word counter: its name, its language, and how its process is started and from where."""

    name: str
    language: str
    command: list[str]
    folder: Path
    build: list[str] | None = None


def agents(console: Console) -> tuple[list[Agent], list[str]]:
    """One agent for each language whose tools are here, by `sdks/*/demo.yaml`; and who had to be left out."""
    found: list[Agent] = []
    missing: list[str] = []
    for path in sorted(ROOT.glob("sdks/*/demo.yaml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = f"counter-{path.parent.name}"
        lacks = [tool for tool in data.get("needs", []) if shutil.which(tool) is None]
        if lacks:
            missing.append(f"{data['language']} (no {', '.join(lacks)} on this machine)")
            continue
        command = [sys.executable if word == "{python}" else word for word in data["run"]]
        found.append(Agent(name, data["language"], command, path.parent, data.get("build")))
    if len(found) == 1:  # somebody has to take over
        found.append(replace(found[0], name=f"{found[0].name}-2"))
    for agent in found:
        if agent.build:
            began = time.monotonic()
            console.print(f"building the {agent.language} agent ... ", style="dim", end="")
            done = subprocess.run(
                agent.build,
                cwd=agent.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"\nthe {agent.language} agent does not build:\n{done.stdout[-3000:]}")
            console.print(f"{time.monotonic() - began:.1f} s", style="dim")
    return found, missing


@dataclass
class Stage:
    """The processes of the demo and what they told."""

    console: Console
    began: float = field(default_factory=time.monotonic)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    watchers: list[asyncio.Task[None]] = field(default_factory=list)
    documents: int = 0  # how many texts, or parts of texts, are to be worked on
    victim: str | None = None  # the document in whose middle a word counter was killed

    def line(self, who: str, text: str) -> None:
        """Prints a line of the timeline."""
        names = [name for name in self.processes if name.startswith("counter")]
        colour = {"broker": "dim", "coordinator": "cyan"}.get(who, "bold")
        if who in names:
            colour = COLOURS[names.index(who) % len(COLOURS)]
        self.console.print(f"{time.monotonic() - self.began:7.3f} s  ", end="", highlight=False)
        self.console.print(f"{who:17}", style=colour, end="", highlight=False)
        self.console.print(text, highlight=False, markup=False)

    async def start(
        self, who: str, *command: str, folder: Path = ROOT, **environment: str
    ) -> asyncio.subprocess.Process:
        """Starts a process of the demo with pipes to and from it."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, cwd=folder, limit=1 << 22, env={**os.environ, **environment}
        )
        self.processes[who] = process
        return process

    async def start_agent(self, agent: Agent, url: str) -> None:
        """Starts a word counter and follows what it tells."""
        process = await self.start(
            agent.name,
            *agent.command,
            folder=agent.folder,
            MQ9_URL=url,
            MQ9_NAME=agent.name,
            MQ9_MAILBOX=MAILBOX,
            MQ9_THINK_MS=str(THINK_MS),
        )
        self.watchers.append(asyncio.create_task(self.follow(agent.name, process, counter_event)))

    async def start_coordinator(self, url: str, texts: list[Path]) -> None:
        """Starts the coordinator and follows what it tells."""
        process = await self.start(
            "coordinator", sys.executable, "demo/coordinator.py", "--url", url, *map(str, texts)
        )
        self.watchers.append(asyncio.create_task(self.follow("coordinator", process, json.loads)))

    async def follow(
        self, who: str, process: asyncio.subprocess.Process, read: Callable[[str], dict[str, Any]]
    ) -> None:
        """Puts a process's events on the timeline; kills a word counter in the middle of a task."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            event = {"who": who, **read(line.decode())}
            self.line(who, event["text"])
            async with self.changed:
                self.events.append(event)
                self.documents = event.get("documents", self.documents)
                last = self.victim is None and self.count("start") == min(VICTIM_TASK, self.documents)
                if last and event["kind"] == "start":
                    process.kill()
                    self.victim = event["document"]
                    self.line("", f"kill -9 {who}, in the middle of {self.victim}; its lease runs on")
                self.changed.notify_all()
        code = await process.wait()
        async with self.changed:
            self.events.append({"who": who, "kind": "ended", "code": code})
            self.changed.notify_all()

    def count(self, kind: str, who: str | None = None) -> int:
        """How many events of a kind there were, of all or of one process."""
        return sum(e["kind"] == kind and who in (None, e["who"]) for e in self.events)

    async def until(self, kind: str, times: int, seconds: float = 30.0) -> None:
        """Waits for so many events of a kind; an agent that ends early is an error."""

        def reached() -> bool:
            unexpected = [e for e in self.events if e["kind"] == "ended" and e["code"] not in (0, -9)]
            if unexpected:
                who, code = unexpected[0]["who"], unexpected[0]["code"]
                raise SystemExit(f"{who} ended with code {code}; its last words stand above")
            return self.count(kind) >= times

        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(reached), seconds)

    def say(self, who: str, word: str) -> None:
        """Writes a word on an agent's standard input."""
        stdin = self.processes[who].stdin
        assert stdin is not None
        stdin.write(f"{word}\n".encode())

    async def end(self) -> None:
        """Ends every process that still runs, the broker last."""
        for process in reversed(list(self.processes.values())):
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 5)
                except asyncio.TimeoutError:
                    process.kill()
                    await process.wait()
        await asyncio.gather(*self.watchers)


def counter_event(line: str) -> dict[str, Any]:
    """What a word counter tells: `ready`, `began DOCUMENT priority=P delivery=N`, `did DOCUMENT words=W`."""
    text = line.rstrip("\n")
    if began := re.fullmatch(r"began (.*) priority=(\w+) delivery=(\d+)", text):
        document, priority, delivery = began[1], began[2], int(began[3])
        again = f", delivery {delivery}" if delivery > 1 else ""
        return {
            "kind": "start",
            "text": f"{priority:8} {document}{again}",
            "document": document,
            "priority": priority,
            "delivery": delivery,
        }
    kind, _, rest = text.partition(" ")
    if kind == "ready":
        return {"kind": "ready", "text": f"registered, mailbox {MAILBOX}, and went away"}
    return {"kind": kind, "text": f"did {rest}" if kind == "did" else text}


def documents(given: str) -> list[Path]:
    """The texts to work on: a file, the texts of a folder, or this project's own documents.

    Raises:
        SystemExit: Nothing readable is there.
    """
    place = Path(given).expanduser() if given else ROOT
    if place.is_file():
        if place.stat().st_size > LARGEST_FILE:
            raise SystemExit(
                f"INPUT={given}: larger than {LARGEST_FILE // 1_000_000} MB, too much for a demo"
            )
        return [place]
    if not place.is_dir():
        raise SystemExit(f"INPUT={given}: no such file or folder")
    suffixes = TEXT_SUFFIXES if given else {".md"}
    skipped = {".venv", "node_modules", "build", "reports", "target", "dist"}
    found = sorted(
        path
        for path in place.rglob("*")
        if path.suffix in suffixes
        and not any(part in skipped or part.startswith(".") for part in path.relative_to(place).parts)
        and path.is_file()
        and 0 < path.stat().st_size < LARGEST_DOCUMENT
    )
    if not found:
        raise SystemExit(f"INPUT={given}: no texts ({', '.join(sorted(suffixes))}) in there")
    if not given:  # what people wrote, rather than the pages that are generated
        found = [path for path in found if "reference" not in path.parts and "tests" not in path.parts]
    step = max(1, len(found) // MOST_DOCUMENTS)
    return [p.relative_to(ROOT) if p.is_relative_to(ROOT) else p for p in found[::step][:MOST_DOCUMENTS]]


def make_console() -> Console:
    """A console that fits the terminal; in a pipe plain, with lines as long as they are."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


async def register_cards(url: str) -> int:
    """Puts the real cards into the registry."""
    cards = list(map(json.loads, (ROOT / "demo" / "cards.jsonl").read_text(encoding="utf-8").splitlines()))
    async with await mq9.connect(url, name="catalogue") as client:
        await asyncio.gather(*(client.agent_register(card["name"], card=card) for card in cards))
    return len(cards)


def order_is_kept(starts: list[dict[str, Any]]) -> bool:
    """Whether workers of one group began their tasks in the order of the lanes.

    Each worker's own tasks are seen in their order. Two workers that begin at the same moment may be seen in
    either order, so between workers a task counts as late only when one of a lane behind it is already done.
    """
    rank = {"critical": 0, "urgent": 1, "normal": 2}
    current: dict[str, int] = {}
    done = 0  # the last lane of which a task is done
    for start in starts:
        lane = rank[start["priority"]]
        if lane < max(done, current.get(start["who"], 0)):
            return False
        done = max(done, current.get(start["who"], 0))
        current[start["who"]] = lane
    return bool(starts)


def verdicts(stage: Stage) -> list[tuple[str, bool, str]]:
    """What the demo promises, whether it came true, and what was seen."""
    starts = [e for e in stage.events if e["kind"] == "start"]
    first_deliveries = [e for e in starts if e["delivery"] == 1]
    lanes_of: dict[str, list[str]] = {}
    for event in first_deliveries:
        lanes_of.setdefault(event["who"], []).append(event["priority"])
    again = [e for e in starts if e["document"] == stage.victim and e["delivery"] == 2]
    killed = next((e["who"] for e in starts if e["document"] == stage.victim), None)
    final = next((e for e in stage.events if e["kind"] == "verdict"), None)
    return [
        (
            "critical and urgent tasks overtook normal ones",
            order_is_kept(first_deliveries),
            "; ".join(
                f"{who}: {' > '.join(dict.fromkeys(lanes))}" for who, lanes in sorted(lanes_of.items())
            ),
        ),
        (
            "the killed worker's task was taken over",
            bool(again) and again[0]["who"] != killed,
            f"{stage.victim}, {killed} -> {again[0]['who'] if again else 'nobody'}, delivery 2",
        ),
        (
            "every result equals a direct computation",
            bool(final and final["equal"]),
            final["text"] if final else "no verdict",
        ),
    ]


async def play(console: Console, texts: list[Path], *, strict: bool) -> int:
    """Plays the demo; gives the exit code."""
    counters, missing = agents(console)
    if missing:
        console.print(f"left out: {'; '.join(missing)}", style="yellow", highlight=False)
        if strict:
            return 1
    stage = Stage(console)
    try:
        broker = await stage.start(
            "broker",
            str(Path(sys.executable).parent / "mq9-broker"),
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "off",
        )
        assert broker.stdout is not None
        ready = (await asyncio.wait_for(broker.stdout.readline(), 20)).decode().strip()
        if not ready.startswith("mq9-broker ready"):
            raise SystemExit("the broker did not start; its last words stand above")
        url = ready.split("nats=")[1].split()[0]
        stage.line("broker", ready)
        stage.line("catalogue", f"{await register_cards(url)} real agent cards are in the registry")
        for agent in counters:
            await stage.start_agent(agent, url)
        await stage.start_coordinator(url, texts)
        await stage.until("ready", len(counters))
        stage.say("coordinator", "begin")
        await stage.until("handed-out", 1)
        stage.line("", "the agents come back")
        for agent in counters:
            stage.say(agent.name, "work")
        await stage.until("verdict", 1, 45)
    finally:
        await stage.end()
    table = Table(
        "promise",
        "kept",
        "seen",
        title=f"{time.monotonic() - stage.began:.1f} s, {len(stage.events)} events",
        title_justify="left",
    )
    results = verdicts(stage)
    for promise, kept, seen in results:
        table.add_row(promise, "yes" if kept else "NO", seen)
    console.print()
    console.print(table)
    return 0 if all(kept for _, kept, _ in results) else 1


def main() -> int:
    """Reads the options and plays the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--input",
        default=os.environ.get("MQ9_DEMO_INPUT", ""),
        metavar="PLACE",
        help="a file or folder to work on (default: this project's documents)",
    )
    parser.add_argument("--strict", action="store_true", help="fail if a language has to be left out")
    options = parser.parse_args()
    try:
        return asyncio.run(play(make_console(), documents(options.input), strict=options.strict))
    except KeyboardInterrupt:
        print("\ninterrupted; all processes were ended", file=sys.stderr)
        return 130
    except asyncio.TimeoutError:
        print(
            "the demo did not get on within its time; the timeline above shows how far it came",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
