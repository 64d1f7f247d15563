"""A shell over a real engine in memory, and connections that remember what they were sent."""

import asyncio
import base64
import json
from typing import Any

from mq9_broker.clock import ManualClock
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.shell.shell import Shell
from mq9_broker.shell.waking import ShellOptions
from mq9_broker.store import MemoryStore

PREFIX = b"$mq9.AI."
START_MS = 1_700_000_000_000


class Connection:
    """A client's connection, seen from the shell."""

    def __init__(self) -> None:
        self.is_closed = False
        self.unsubscribed: set[bytes] = set()
        self.replies: dict[bytes, Any] = {}
        self.order: list[bytes] = []
        self.writes = 0
        self._arrived = asyncio.Event()

    def listens(self, subject: bytes) -> bool:
        return not self.is_closed and subject not in self.unsubscribed

    def send_replies(self, replies: list[tuple[bytes, bytes]]) -> None:
        assert replies
        self.writes += 1
        for reply_to, reply in replies:
            assert reply_to not in self.replies, "answered twice"
            self.replies[reply_to] = json.loads(reply)
            self.order.append(reply_to)
        self._arrived.set()

    async def reply(self, reply_to: bytes) -> Any:
        """Wait for a reply; the bound is for liveness only."""
        while reply_to not in self.replies:
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 10)
        return self.replies[reply_to]


class Broker:
    """A shell under test."""

    def __init__(
        self, engine: Engine | None = None, options: ShellOptions | None = None, **limits: int
    ) -> None:
        self.clock = ManualClock(START_MS)
        self.engine = engine if engine is not None else Engine(MemoryStore(), EngineLimits(**limits))
        self.shell = Shell(self.engine, self.clock, options)
        self.shell.start(asyncio.get_running_loop())
        self._connection = Connection()
        self._number = 0

    def connection(self) -> Connection:
        return Connection()

    def send_requests(self, connection: Connection, *requests: tuple[str, Any]) -> list[bytes]:
        """Let requests arrive together; returns where their replies go."""
        chunk = []
        done = 0
        for subject, body in requests:
            self._number += 1
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            chunk.append((PREFIX + subject.encode(), b"r%d" % self._number, None, payload))
        while chunk[done:]:
            done += self.shell.handle(connection, chunk[done:])
        return [reply_to for _, reply_to, _, _ in chunk if reply_to is not None]

    def ask(self, subject: str, body: Any = b"", headers: bytes | None = None) -> Any:
        """The reply of a request that is answered at once."""
        self._number += 1
        reply_to = b"r%d" % self._number
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        block = None if headers is None else b"NATS/1.0\r\n" + headers + b"\r\n\r\n"
        self.shell.handle(self._connection, [(PREFIX + subject.encode(), reply_to, block, payload)])
        return self._connection.replies[reply_to]

    def ok(self, subject: str, body: Any = b"", headers: bytes | None = None) -> Any:
        """Likewise; it must succeed."""
        reply = self.ask(subject, body, headers)
        assert reply["error"] == "", reply
        return reply

    def create(self, name: str, **options: Any) -> None:
        self.ok("MAILBOX.CREATE", {"name": name, **options})

    def send(self, name: str, payload: bytes = b"x", headers: bytes | None = None) -> int:
        number: int = self.ok(f"MSG.SEND.{name}", payload, headers)["msg_id"]
        return number

    def fetch(self, name: str, group: str = "", **options: Any) -> list[int]:
        """The ids that a FETCH brings that does not wait."""
        reply = self.ok(f"MSG.FETCH.{name}", fetch_body(group, **{"max_wait_ms": 0, **options}))
        return ids(reply)

    def wait(self, connection: Connection, name: str, group: str = "", **options: Any) -> bytes:
        """Let a FETCH wait, for a minute unless told otherwise."""
        body = fetch_body(group, **{"max_wait_ms": 60_000, **options})
        return self.send_requests(connection, (f"MSG.FETCH.{name}", body))[0]


def fetch_body(group: str = "", **options: Any) -> dict[str, Any]:
    config = {key: options.pop(key) for key in ("num_msgs", "max_wait_ms", "lease_ms") if key in options}
    return {"group_name": group, "config": config, **options}


def ids(reply: Any) -> list[int]:
    return [message["msg_id"] for message in reply["messages"]]


def payloads(reply: Any) -> list[bytes]:
    return [base64.b64decode(message["payload"]) for message in reply["messages"]]
