"""The runner between SDK and broker: a recording proxy that can also play odd moments, or a broker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import frames
from .results import HarnessError
from .spec import Spec
from .timeline import Timeline
from .values import Variables
from .wire import Rule, WireLog, WireRecord, compare, reply_payload

_BARRIER_TIMEOUT_S = 5.0
_CONNECTIONS = itertools.count(1)


@dataclass
class RuleBook:
    """The rules of a scenario: what to answer to which request; the last reply of a rule repeats."""

    variables: Variables
    scripted: bool
    rules: list[Rule] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _used: list[int] = field(default_factory=list)

    def replace(self, rules: list[Rule]) -> None:
        """Puts other rules in the place of these."""
        self.rules, self._used = list(rules), [0] * len(rules)

    def reply_for(self, record: WireRecord) -> Rule | None:
        """The reply that the first matching rule has for this request, None if no rule matches."""
        for index, rule in enumerate(self.rules):
            wanted = rule["on"] if isinstance(rule["on"], list) else [rule["on"]]
            if "*" not in wanted and record.operation not in wanted and record.subject not in wanted:
                continue
            if "where" in rule:
                trial = Variables(self.variables.stem, dict(self.variables.bound))
                if compare(rule["where"], record, trial, exact=False, path="where"):
                    continue
            replies: list[Rule] = rule.get("replies") or [rule.get("reply", {"none": True})]
            chosen = replies[min(self._used[index], len(replies) - 1)]
            self._used[index] += 1
            return chosen
        if self.scripted:
            self.problems.append(f"the scripted broker has no rule for {record.describe()}")
        return None


@dataclass
class ServerOptions:
    """How a scripted server presents itself."""

    info: Mapping[str, Any] = field(default_factory=dict)
    require: Mapping[str, Any] = field(default_factory=dict)


class ClientWire:
    """The listening side for one SDK client. Everything the client sends passes here."""

    def __init__(
        self,
        client: str,
        spec: Spec,
        rules: RuleBook,
        timeline: Timeline,
        upstream: Callable[[], tuple[str, int]] | None,
        options: ServerOptions | None = None,
    ) -> None:
        self.log = WireLog(client)
        self.spec, self.rules, self.timeline = spec, rules, timeline
        self.upstream, self.options = upstream, options or ServerOptions()
        self.port = 0
        self.connects: list[dict[str, Any]] = []
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def refuses(self) -> bool:
        """Whether nobody can connect."""
        return self._server is None

    @property
    def url(self) -> str:
        """Where the SDK connects to."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Begins to listen; the port stays the same when it begins again."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=2**22)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self, *, refuse: bool) -> None:
        """Stops listening, or begins again."""
        if refuse and self._server is not None:
            self._server.close()
            self._server = None
        elif not refuse and self._server is None:
            await self.start()

    async def disconnect(self) -> None:
        """Cuts every connection."""
        for connection in list(self._connections):
            connection.cut()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Ends everything."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.cut()
            await connection.ended()

    async def barrier(self) -> None:
        """Returns when the broker has handled every request that has passed here."""
        for connection in list(self._connections):
            await connection.barrier()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class _Connection:
    """One connection of a client, and the one to the broker that belongs to it."""

    def __init__(self, wire: ClientWire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._wire = wire
        self._reader, self._writer = reader, writer
        self._number = next(_CONNECTIONS)
        self._up_writer: asyncio.StreamWriter | None = None
        self._subscriptions: dict[str, str] = {}
        self._asked: dict[str, WireRecord] = {}
        self._lost: set[str] = set()
        self._cut_after: set[str] = set()
        self._pings: list[asyncio.Future[None] | None] = []
        self._done = asyncio.Event()
        self._authorised = not wire.options.require

    def cut(self) -> None:
        """Closes both sides at once."""
        for writer in (self._writer, self._up_writer):
            if writer is not None:
                writer.close()

    async def ended(self) -> None:
        """Returns when nothing of this connection runs any more."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._done.wait(), 2)

    async def barrier(self) -> None:
        if self._up_writer is None or self._up_writer.is_closing():
            return
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pings.append(pong)
        self._up_writer.write(b"PING\r\n")
        try:
            await asyncio.wait_for(pong, _BARRIER_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise HarnessError("the broker did not answer the runner's PING on an SDK's connection") from None

    async def run(self) -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            if self._wire.upstream is None:
                self._writer.write(frames.info(self._info()))
            else:
                host, port = self._wire.upstream()
                up_reader, self._up_writer = await asyncio.open_connection(host, port, limit=2**22)
                tasks.append(asyncio.ensure_future(self._from_broker(up_reader)))
            tasks.append(asyncio.ensure_future(self._from_client()))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except OSError as error:
            self._wire.timeline.add("wire", f"{self._wire.log.client}: broker not reached: {error}")
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, frames.FrameError):
                    self._wire.rules.problems.append(
                        f"{self._wire.log.client} sent bytes that are no frame: {result}"
                    )
            self.cut()
            for pong in self._pings:
                if pong is not None and not pong.done():
                    pong.set_result(None)
            self._done.set()

    def _info(self) -> dict[str, Any]:
        info = {
            "server_id": "SCRIPTED",
            "server_name": "scripted",
            "version": "2.10.0",
            "proto": 1,
            "headers": True,
            "host": "127.0.0.1",
            "port": self._wire.port,
            "max_payload": 1048576,
            "client_id": self._number,
        }
        if self._wire.options.require:
            info["auth_required"] = True
        return {**info, **self._wire.options.info}

    # client -> broker

    async def _from_client(self) -> None:
        parser = frames.FrameParser()
        while data := await self._reader.read(1 << 18):
            for frame in parser.feed(data):
                self._client_frame(frame)
            if self._up_writer is not None:
                await self._up_writer.drain()

    def _client_frame(self, frame: frames.Frame) -> None:
        if frame.verb == "SUB":
            self._subscriptions[frame.args[-1]] = frame.args[0]
        elif frame.verb == "UNSUB" and len(frame.args) == 1:
            self._subscriptions.pop(frame.args[0], None)
        elif frame.verb == "CONNECT":
            self._connect(json.loads(frame.args[0]))
        elif frame.verb == "PING" and self._up_writer is not None:
            self._pings.append(None)
        if frame.verb in {"PUB", "HPUB"} and frame.subject.startswith(self._wire.spec.prefix):
            self._request(frame)
        elif self._up_writer is not None:
            self._up_writer.write(frame.raw)
        elif frame.verb == "PING" and self._authorised:
            self._writer.write(b"PONG\r\n")

    def _connect(self, options: dict[str, Any]) -> None:
        self._wire.connects.append(options)
        for name, wanted in self._wire.options.require.items():
            if options.get({"password": "pass", "token": "auth_token"}.get(name, name)) != wanted:
                self._writer.write(b"-ERR 'Authorization Violation'\r\n")
                asyncio.get_running_loop().call_later(0.05, self.cut)
                return
        self._authorised = True
        if options.get("verbose") and self._up_writer is None:
            self._writer.write(b"+OK\r\n")

    def _request(self, frame: frames.Frame) -> None:
        log, wire = self._wire.log, self._wire
        record = WireRecord(
            client=log.client,
            connection=self._number,
            operation=wire.spec.operation_of(frame.subject),
            subject=frame.subject,
            headers=frame.headers,
            payload=frame.payload,
            at=time.monotonic(),
            gap_ms=log.gap_ms(),
        )
        wire.timeline.add("wire", f"{log.client} > {record.describe()}")
        reply = wire.rules.reply_for(record)
        if frame.reply_to:
            self._asked[frame.reply_to] = record
        if reply is None and self._up_writer is not None:
            reply = {"pass": True}
        if reply is not None:
            self._play(frame, record, reply)
        log.add(record)

    def _play(self, frame: frames.Frame, record: WireRecord, reply: Rule) -> None:
        if {"pass", "lose", "pass_then_close"} & reply.keys() and self._up_writer is not None:
            self._up_writer.write(frame.raw)
            if frame.reply_to and "lose" in reply:
                self._lost.add(frame.reply_to)
            if frame.reply_to and "pass_then_close" in reply:
                self._cut_after.add(frame.reply_to)
            return
        if reply.get("none"):
            return
        delay = int(reply.get("delay_ms", 0)) / 1000
        if reply.get("close"):
            asyncio.get_running_loop().call_later(delay, self.cut)
            return
        if frame.reply_to is None:
            return
        head = b""
        if "status" in reply:
            status = 503 if reply["status"] == "no_responders" else int(reply["status"])
            head = frames.header_block([], str(status))
        elif "headers" in reply:
            head = frames.header_block([(k, str(v)) for k, v in reply["headers"].items()])
        payload = reply_payload(reply, self._wire.rules.variables)
        reply_to = frame.reply_to
        if delay:
            asyncio.get_running_loop().call_later(delay, self._answer, reply_to, head, payload)
        else:
            self._answer(reply_to, head, payload)

    def _answer(self, reply_to: str, head: bytes, payload: bytes) -> None:
        record = self._asked.pop(reply_to, None)
        if record is not None:
            record.reply = payload
        status = frames.parse_headers(head)[0] or ""
        self._wire.timeline.add(
            "wire", f"{self._wire.log.client} < scripted {status} {payload[:200].decode('utf-8', 'replace')}"
        )
        for sid, subject in self._subscriptions.items():
            if frames.subject_matches(subject, reply_to) and not self._writer.is_closing():
                self._writer.write(frames.message(reply_to, sid, head, payload))

    # broker -> client

    async def _from_broker(self, up_reader: asyncio.StreamReader) -> None:
        parser = frames.FrameParser()
        while data := await up_reader.read(1 << 18):
            output = bytearray()
            close = False
            for frame in parser.feed(data):
                keep, cut = self._broker_frame(frame)
                if keep:
                    output += frame.raw
                close = close or cut
            if output:
                self._writer.write(bytes(output))
                await self._writer.drain()
            if close:
                return

    def _broker_frame(self, frame: frames.Frame) -> tuple[bool, bool]:
        """Says whether the client gets this frame, and whether its connection is cut then."""
        if frame.verb == "PONG" and self._pings:
            mine = self._pings.pop(0)
            if mine is not None:
                if not mine.done():
                    mine.set_result(None)
                return False, False
        elif frame.verb in {"MSG", "HMSG"}:
            record = self._asked.pop(frame.subject, None)
            if record is not None:
                record.reply = frame.payload
                lost = frame.subject in self._lost
                closes = frame.subject in self._cut_after
                note = " (lost)" if lost or closes else ""
                text = frame.payload[:300].decode("utf-8", "replace")
                self._wire.timeline.add(
                    "wire", f"{self._wire.log.client} <{note} {frame.status or ''} {text}"
                )
                if lost or closes:
                    return False, closes
        elif frame.verb == "-ERR":
            self._wire.timeline.add("wire", f"{self._wire.log.client} < -ERR {frame.args[0]}")
        return True, False
