"""What the tests stand on: scripted connections, mailboxes and servers, and real brokers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mq9._connection import Connection
from mq9._generated.errors import ConnectionClosedError, Mq9TimeoutError, NoRespondersError


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Waits until something holds; the condition may be asynchronous."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        result = condition()
        if await result if asyncio.iscoroutine(result) else result:
            return
        assert asyncio.get_running_loop().time() < deadline, "it never happened"
        await asyncio.sleep(0.001)


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


class Mailbox:
    """A mailbox with leases and no clock: what is given back comes again, what is confirmed does not."""

    def __init__(self, count: int = 0, *, lease_id: str = "L") -> None:
        self.messages = list(range(count))
        self.counts: dict[int, int] = {}
        self.leased: dict[int, str] = {}
        self.confirmed: set[int] = set()
        self.arrived = asyncio.Event()
        self.fetches = 0
        self.lease_id = lease_id
        self.failures: dict[str, list[Any]] = {}
        self.fetch_delay: asyncio.Event | None = None

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.messages.append(len(self.messages))
        self.arrived.set()

    def fail(self, operation: str, *answers: Any) -> None:
        self.failures.setdefault(operation, []).extend(answers)

    async def __call__(self, request: Any) -> Any:
        queue = self.failures.get(request.operation)
        if queue:
            return queue.pop(0)
        body = request.json
        if request.operation == "msg.fetch":
            return await self.fetch(body)
        ids = body.get("msg_ids", [body.get("msg_id")])
        if request.operation == "msg.ack":
            self.confirmed.update(ids)
            for i in ids:
                self.leased.pop(i, None)
        if request.operation == "msg.nack":
            for i in ids:
                if self.leased.get(i) == body.get("lease_id"):
                    del self.leased[i]
            self.arrived.set()
        if request.operation == "msg.renew":
            return {"error": "", "renewed": [i for i in ids if self.leased.get(i) == body.get("lease_id")]}
        return {"error": ""}

    async def fetch(self, body: dict[str, Any]) -> Any:
        self.fetches += 1
        lease_id = f"{self.lease_id}{self.fetches}"
        if self.fetch_delay is not None:
            await self.fetch_delay.wait()
        while True:
            ready = [i for i in self.messages if i not in self.confirmed and i not in self.leased]
            ready = ready[: body["config"]["num_msgs"]]
            if ready:
                break
            self.arrived.clear()
            await self.arrived.wait()
        items = []
        for i in ready:
            self.leased[i] = lease_id
            self.counts[i] = self.counts.get(i, 0) + 1
            payload = base64.b64encode(str(i).encode()).decode()
            items.append(
                {"msg_id": i, "payload": payload, "encoding": "base64", "delivery_count": self.counts[i]}
            )
        return {"error": "", "messages": items, "lease_id": lease_id}


class Peer:
    """A NATS server by script: says INFO, answers PING, and calls `on_publish` with each request."""

    def __init__(
        self, on_publish: Callable[[Peer, str, str, bytes], Awaitable[None]] | None = None, **info: Any
    ) -> None:
        self.info = {"server_id": "x", "version": "2.10.0", "max_payload": 1048576, "headers": True, **info}
        self.on_publish = on_publish
        self.published: list[tuple[str, bytes]] = []
        self.connects: list[dict[str, Any]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.refuse = ""
        self.port = 0

    async def start(self, port: int = 0) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        self.server.close()
        self.cut()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.server.wait_closed(), 1)

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        writer.write(f"INFO {json.dumps(self.info)}\r\n".encode())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            while line := await reader.readline():
                verb, _, rest = line.decode().strip().partition(" ")
                if verb == "CONNECT":
                    self.connects.append(json.loads(rest))
                    if self.refuse:
                        writer.write(f"-ERR '{self.refuse}'\r\n".encode())
                elif verb == "PING":
                    writer.write(b"PONG\r\n")
                elif verb in ("PUB", "HPUB"):
                    words = rest.split()
                    data = (await reader.readexactly(int(words[-1]) + 2))[:-2]
                    body = data[int(words[-2]) :] if verb == "HPUB" else data
                    self.published.append((words[0], body))
                    if self.on_publish is not None:
                        await self.on_publish(self, words[0], words[1], body)

    async def reply(self, inbox: str, text: str) -> None:
        self.writers[-1].write(f"MSG {inbox} 1 {len(text.encode())}\r\n{text}\r\n".encode())
