"""What the tests share: a scripted connection instead of a network, and real brokers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mq9._client import Client
from mq9._connection import Connection
from mq9._generated.errors import ConnectionClosedError, Mq9TimeoutError, NoRespondersError

Abandoned = Callable[[bytes], Awaitable[None]]


@dataclass
class Request:
    """A request as the SDK sent it."""

    operation: str
    subject: str
    payload: bytes
    headers: dict[str, str]
    timeout: float

    @property
    def json(self) -> Any:
        """The body; an empty one means no members."""
        return json.loads(self.payload or b"{}")


Answer = Any  # A reply as dict or bytes, an exception, or an (async) function of the request that gives one.


@dataclass
class FakeConnection(Connection):
    """Answers requests by a script instead of sending them."""

    answer: Answer = field(default_factory=lambda: {"error": ""})
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(None)

    async def open(self) -> None:
        """There is nothing to open."""

    async def request(
        self,
        operation: str,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        timeout: float,
        *,
        abandoned: Abandoned | None = None,
    ) -> bytes:
        request = Request(operation, subject, payload, dict(headers or {}), timeout)
        self.requests.append(request)
        task = asyncio.ensure_future(self._answer(request))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if abandoned is None:
                task.cancel()
            else:
                late = asyncio.ensure_future(self._late(task, abandoned))
                self._publishing.add(late)
                late.add_done_callback(self._publishing.discard)
            raise

    async def _answer(self, request: Request) -> bytes:
        answer = self.answer
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer(request)
            if asyncio.iscoroutine(answer):
                answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    @staticmethod
    async def _late(task: asyncio.Task[bytes], abandoned: Abandoned) -> None:
        await abandoned(await task)

    def of(self, operation: str) -> list[Request]:
        """The requests of one operation."""
        return [request for request in self.requests if request.operation == operation]


STATUSES: dict[str, Callable[[], Exception]] = {
    "no_responders": lambda: NoRespondersError("nobody serves mq9"),
    "timeout": lambda: Mq9TimeoutError("no reply"),
    "connection_closed": lambda: ConnectionClosedError("the connection broke"),
}


@pytest.fixture
def statuses() -> dict[str, Callable[[], Exception]]:
    """What a connection raises, by the name that the specification gives it."""
    return STATUSES


@pytest.fixture
def fake() -> Callable[..., tuple[Client, FakeConnection]]:
    """Makes a client on a scripted connection; retries do not pause."""

    def make(answer: Answer = None, **options: Any) -> tuple[Client, FakeConnection]:
        connection = FakeConnection() if answer is None else FakeConnection(answer)
        client = Client(connection, **options)
        client._pause_unit = 0.0
        return client, connection

    return make


class Broker:
    """The reference broker in a process of its own, with a test clock."""

    def __init__(self, *arguments: str, port: int = 0, test_clock: bool = True) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        program = "from mq9_broker.cli import main; raise SystemExit(main())"
        command = [sys.executable, "-c", program, "serve", "--listen", f"127.0.0.1:{port}"]
        command += ["--http", "127.0.0.1:0", "--store", "memory", *arguments]
        command += ["--test-clock"] if test_clock else []
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        watchdog = threading.Timer(30, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        watchdog.cancel()
        if not line.strip():
            self._errors.seek(0)
            raise RuntimeError(f"the broker did not start: {self._errors.read().decode()}")
        self.ready = dict(part.split("=", 1) for part in line.split() if "=" in part)

    @property
    def port(self) -> int:
        """The NATS port."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def url(self) -> str:
        """The NATS URL."""
        return self.ready["nats"]

    async def advance(self, milliseconds: int) -> None:
        """Moves the broker's clock; returns when everything that fell due has happened."""
        body = json.dumps({"advance_ms": milliseconds}).encode()
        request = urllib.request.Request(f"{self.ready['http']}/clock", body, method="POST")
        with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10) as response:
            assert response.status == 200

    def stop(self) -> None:
        """Ends the process and waits for it."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()

    def kill(self) -> None:
        """Ends the process at once."""
        self.process.kill()
        self.stop()


@pytest.fixture(scope="session")
def start_broker() -> Iterator[Callable[..., Broker]]:
    """Starts brokers; all are ended when the tests are."""
    running: list[Broker] = []

    def start(*arguments: str, port: int = 0, test_clock: bool = True) -> Broker:
        broker = Broker(*arguments, port=port, test_clock=test_clock)
        running.append(broker)
        return broker

    yield start
    for broker in running:
        if broker.process.poll() is None:
            broker.stop()


@pytest.fixture(scope="session")
def broker(start_broker: Callable[..., Broker]) -> Broker:
    """One broker for all tests that neither stop nor restart it."""
    return start_broker()


@pytest.fixture
def vectors_file() -> Path:
    """The wire vectors of the specification, generated."""
    return Path(__file__).parent / "generated" / "vectors.json"
