"""The broker under the scenarios: a process of the reference broker, or one that somebody else runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .fork_server import ForkedProcess, ForkServer
from .results import HarnessError
from .timeline import Timeline

_READY_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 15.0
_NATS = re.compile(r"nats://([^\s:]+):(\d+)")
_HTTP = re.compile(r"http://([^\s:/]+):(\d+)")

BROKER_COMMAND = [sys.executable, "-m", "mq9_conformance.reference_broker"]
"""Starts the reference broker, with a mutant in it if MQ9_MUTANT names one."""


@dataclass
class HttpReply:
    """What the broker's HTTP port answered."""

    status: int
    text: str

    def as_data(self) -> dict[str, Any]:
        """The fields that a scenario may compare."""
        data: dict[str, Any] = {"status": self.status, "text": self.text}
        try:
            data["json"] = json.loads(self.text)
        except ValueError:
            return data
        return data


@dataclass
class Broker:
    """Where a broker listens. This base class stands for one that somebody else runs."""

    nats: tuple[str, int]
    http: tuple[str, int] | None = None
    timeline: Timeline | None = None

    @property
    def has_clock(self) -> bool:
        """Says whether time can be advanced."""
        return self.http is not None

    def address(self) -> tuple[str, int]:
        """Host and port of the NATS side."""
        return self.nats

    async def advance(self, milliseconds: int) -> int:
        """Moves the test clock; returns its time (ms) after all due timers have run."""
        reply = await self.http_request("POST", "/clock", json.dumps({"advance_ms": milliseconds}))
        if reply.status != 200:
            raise HarnessError(
                f"POST /clock was answered {reply.status} {reply.text[:200]}: does it run with --test-clock?"
            )
        now_ms = json.loads(reply.text)["now_ms"]
        assert isinstance(now_ms, int)
        return now_ms

    async def http_request(self, method: str, path: str, body: str = "") -> HttpReply:
        """One HTTP request to the broker."""
        if self.http is None:
            raise HarnessError("this broker has no HTTP port")
        reader, writer = await asyncio.open_connection(*self.http)
        data = body.encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        try:
            answer = await asyncio.wait_for(reader.read(), 10)
        except asyncio.TimeoutError:
            raise HarnessError(f"{method} {path} was not answered within 10 s") from None
        finally:
            writer.close()
        first, _, rest = answer.partition(b"\r\n")
        words = first.split()
        if len(words) < 2 or not words[1].isdigit():
            raise HarnessError(f"{method} {path} was answered {answer[:80]!r}")
        return HttpReply(int(words[1]), rest.partition(b"\r\n\r\n")[2].decode("utf-8", "replace"))


@dataclass
class ReferenceBroker(Broker):
    """A process of the reference broker with a test clock, on ports of its own choice.

    Clients find it at the same NATS port when it starts again: meanwhile that is kept for it.

    Attributes:
        command: How it is started where there is no `fork_server`.
        store: `memory` or `rocksdb`.
        options: Further options of `mq9-broker serve`, without their `--`.
        environment: Variables beside those of this process.
        fork_server: Forks it, which takes a tenth of the time.
    """

    command: list[str] = field(default_factory=lambda: list(BROKER_COMMAND))
    store: str = "memory"
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    fork_server: ForkServer | None = None
    _clock_ms: int = 0
    _process: asyncio.subprocess.Process | ForkedProcess | None = None
    _ended_output: bool = False
    _folder: Path | None = None
    _output: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _kept_port: socket.socket | None = None

    @property
    def alive(self) -> bool:
        """Says whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts the process and waits for its ready line; started again it has the same NATS port."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="mq9-conformance-"))
        arguments = [
            "serve",
            "--listen",
            f"{self.nats[0]}:{self.nats[1]}",
            "--http",
            "127.0.0.1:0",
            "--store",
            self.store,
            "--test-clock",
        ]
        if self.store != "memory":
            arguments += ["--data", str(self._folder / "data")]
        for name, value in self.options.items():
            arguments += [f"--{name}", str(value)]
        self._output.clear()
        self._ended_output = False
        if self.fork_server is not None:
            self._process = await self.fork_server.spawn(arguments, self.environment, self._folder)
        else:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                *arguments,
                env={**os.environ, **self.environment},
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        ready = asyncio.get_running_loop().create_future()
        assert self._process.stdout is not None and self._process.stderr is not None
        self._tasks = [
            asyncio.ensure_future(self._read(self._process.stdout, ready)),
            asyncio.ensure_future(self._read(self._process.stderr, None)),
        ]
        try:
            line = await asyncio.wait_for(ready, _READY_TIMEOUT_S)
        except (asyncio.TimeoutError, EOFError):
            await self.kill()
            raise HarnessError(
                f"the broker does not become ready: {' '.join(arguments)}: {self.last_words()}"
            ) from None
        self._give_port_back()
        nats, http_found = _NATS.search(line), _HTTP.search(line)
        if nats is None or http_found is None:
            raise HarnessError(f"the broker's ready line has no nats:// or http:// address: {line!r}")
        self.nats = (nats[1], int(nats[2]))
        self.http = (http_found[1], int(http_found[2]))
        if self._clock_ms:  # with nothing stored the broker does not know that it was ahead
            await super().advance(max(0, self._clock_ms - await super().advance(0)))

    async def advance(self, milliseconds: int) -> int:
        """Moves the test clock; a restarted broker is brought to the same time."""
        self._clock_ms = await super().advance(milliseconds)
        return self._clock_ms

    def last_words(self) -> str:
        """The end of what the broker wrote."""
        return " | ".join(self._output[-8:]) or "it wrote nothing"

    async def stop(self) -> None:
        """Ends the process politely; raises HarnessError if it does not end or ends with an error."""
        if self._process is None or not self.alive:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT_S)
        except asyncio.TimeoutError:
            await self.kill()
            raise HarnessError(
                f"the broker does not end within {_STOP_TIMEOUT_S:g} s of SIGTERM: {self.last_words()}"
            ) from None
        await self._finish()
        if self._process.returncode != 0:
            raise HarnessError(
                f"the broker ended with {self._process.returncode} after SIGTERM: {self.last_words()}"
            )

    async def kill(self) -> None:
        """Ends the process as kill -9 does."""
        if self._process is not None and self.alive:
            with contextlib.suppress(asyncio.TimeoutError):  # one that is ending already is not signalled
                await asyncio.wait_for(self._process.wait(), 0.5 if self._ended_output else 0.001)
            if self.alive:
                self._process.kill()
                await self._process.wait()
        await self._finish()

    def remove_data(self) -> None:
        """Deletes what the broker has stored; it will not start again."""
        self._give_port_back()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _finish(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self.nats[1] and self._kept_port is None:
            self._kept_port = _kept(self.nats)

    def _give_port_back(self) -> None:
        if self._kept_port is not None:
            self._kept_port.close()
            self._kept_port = None

    async def _read(self, stream: asyncio.StreamReader, ready: asyncio.Future[str] | None) -> None:
        collected = ""
        while line := await stream.readline():
            text = line.decode("utf-8", "replace").rstrip()
            self._output.append(text)
            del self._output[:-200]
            if self.timeline is not None:
                self.timeline.add("broker", text)
            if ready is not None and not ready.done():
                collected += f"{text} "
                if _NATS.search(collected) and _HTTP.search(collected):
                    ready.set_result(collected)
        self._ended_output = True
        if ready is not None and not ready.done():
            ready.set_exception(EOFError())


def _kept(address: tuple[str, int]) -> socket.socket | None:
    """A socket for which the system gives the port to nobody else; a broker may listen there nevertheless."""
    if sys.platform != "linux":  # elsewhere it may not
        return None
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        kept.bind(address)
    except OSError:  # somebody has it already: the next start says so
        kept.close()
        return None
    return kept
