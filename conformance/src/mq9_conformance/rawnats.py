"""A raw NATS client of the runner: no conveniences, no checks, everything visible."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import frames
from .results import CallFailed, CallOptions, HarnessError
from .spec import Spec
from .timeline import Timeline
from .values import ScenarioError, json_bytes, payload_bytes

_TRANSPORT_MARGIN_S = 5.0


@dataclass
class Delivery:
    """A message that came to a subscription."""

    subject: str
    reply_to: str | None
    status: int | None
    headers: frames.Headers
    payload: bytes

    def as_data(self) -> dict[str, Any]:
        """The fields that a scenario may compare; absent ones are left out."""
        data: dict[str, Any] = {"subject": self.subject, "size": len(self.payload), "payload": self.payload}
        if self.reply_to:
            data["reply"] = self.reply_to
        if self.status is not None:
            data["status"] = self.status
        if self.headers:
            grouped: dict[str, list[str]] = {}
            for name, value in self.headers:
                grouped.setdefault(name, []).append(value)
            data["headers"] = grouped
        with contextlib.suppress(UnicodeDecodeError):
            data["text"] = self.payload.decode()
            with contextlib.suppress(ValueError):
                data["json"] = json.loads(self.payload)
        return data


@dataclass
class Subscription:
    """A subscription of a raw client and what has come to it."""

    sid: str
    subject: str
    queue: asyncio.Queue[Delivery] = field(default_factory=asyncio.Queue)


class RawClient:
    """One connection to a broker. Connects again by itself when the runner says that the broker is back."""

    def __init__(self, name: str, host: str, port: int, timeline: Timeline) -> None:
        self.name = name
        self.info: dict[str, Any] = {}
        self.errors: list[str] = []
        self._address = (host, port)
        self._timeline = timeline
        self._sids = itertools.count(1)
        self._inboxes = itertools.count(1)
        self._subscriptions: dict[str, Subscription] = {}
        self._replies: dict[str, asyncio.Future[Delivery]] = {}
        self._pongs: list[asyncio.Future[None]] = []
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._inbox = f"_INBOX.conformance{id(self):x}"
        self._infos: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @property
    def connected(self) -> bool:
        """Says whether the connection is open as far as this side knows."""
        return self._writer is not None and not self._writer.is_closing()

    async def connect(self, options: Mapping[str, Any] | None = None) -> None:
        """Opens the connection, anew if it is open; `options` go into CONNECT."""
        await self.close()
        reader, writer = await asyncio.open_connection(*self._address, limit=2**22)
        self._writer = writer
        self._reader = asyncio.get_running_loop().create_task(self._read(reader))
        self.info = await asyncio.wait_for(self._infos.get(), _TRANSPORT_MARGIN_S)
        connect = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "name": self.name,
        }
        connect.update(options or {})
        connect.update({"lang": "conformance", "version": "1", "protocol": 1})
        self._write(b"CONNECT " + json_bytes(connect) + b"\r\n" + f"SUB {self._inbox}.* 0\r\n".encode())
        await self.flush()

    async def close(self) -> None:
        """Closes the connection; what waits for a reply fails with kind connection_closed."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._writer.wait_closed(), 1)
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        self._writer = self._reader = None
        self._subscriptions.clear()
        self._fail_waiting("the connection was closed")

    def publish(
        self, subject: str, payload: bytes, headers: bytes = b"", reply_to: str | None = None
    ) -> None:
        """Writes one PUB or HPUB frame."""
        self._timeline.add(self.name, f"PUB {subject} {_short(payload)}")
        self._write(frames.publish(subject, reply_to, headers, payload))

    async def flush(self) -> None:
        """Returns when the broker has answered a PING that was sent after everything else."""
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self._write(b"PING\r\n")
        await self._within(pong, _TRANSPORT_MARGIN_S, "no PONG came")

    def subscribe(self, subject: str, queue: str | None = None, maximum: int | None = None) -> Subscription:
        """Writes a SUB frame, and an UNSUB with a count if `maximum` is given."""
        subscription = Subscription(str(next(self._sids)), subject)
        self._subscriptions[subscription.sid] = subscription
        self._write(f"SUB {subject} {f'{queue} ' if queue else ''}{subscription.sid}\r\n".encode())
        if maximum is not None:
            self.unsubscribe(subscription, maximum)
        return subscription

    def unsubscribe(self, subscription: Subscription, maximum: int | None = None) -> None:
        """Writes an UNSUB frame; the subscription's messages so far stay readable."""
        count = f" {maximum}" if maximum is not None else ""
        self._write(f"UNSUB {subscription.sid}{count}\r\n".encode())

    def start_requests(self, requests: list[tuple[str, bytes, bytes]]) -> list[asyncio.Future[Delivery]]:
        """Writes requests (subject, header block, payload) in one piece; gives a future for each reply."""
        output, futures = bytearray(), []
        for subject, headers, payload in requests:
            reply_to = f"{self._inbox}.{next(self._inboxes)}"
            future: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
            self._replies[reply_to] = future
            futures.append(future)
            self._timeline.add(self.name, f"> {subject} {_short(payload)}")
            output += frames.publish(subject, reply_to, headers, payload)
        self._write(bytes(output))
        return futures

    async def request(
        self, subject: str, payload: bytes, headers: bytes = b"", timeout_s: float = 5.0
    ) -> Delivery:
        """Sends one request and waits for its reply; raises CallFailed: timeout or connection_closed."""
        (future,) = self.start_requests([(subject, headers, payload)])
        delivery: Delivery = await self._within(
            future, timeout_s, f"no reply on {subject} in {timeout_s:g} s"
        )
        return delivery

    async def _within(self, future: asyncio.Future[Any], timeout_s: float, what: str) -> Any:
        try:
            return await asyncio.wait_for(future, timeout_s)
        except asyncio.TimeoutError:
            raise CallFailed("timeout", message=what) from None

    def _write(self, data: bytes) -> None:
        if self._writer is None or self._writer.is_closing():
            raise CallFailed("connection_closed", message=f"{self.name} is not connected")
        self._writer.write(data)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        parser = frames.FrameParser()
        try:
            while data := await reader.read(1 << 18):
                for frame in parser.feed(data):
                    self._take(frame)
        except OSError as error:
            self._timeline.add(self.name, f"connection lost: {error}")
        if self._writer is not None:
            self._writer.close()
        self._fail_waiting("the broker closed the connection")

    def _take(self, frame: frames.Frame) -> None:
        if frame.verb == "INFO":
            self._infos.put_nowait(json.loads(frame.args[0]))
        elif frame.verb == "PING":
            self._write(b"PONG\r\n")
        elif frame.verb == "PONG":
            if self._pongs:
                _settle(self._pongs.pop(0), None)
        elif frame.verb == "-ERR":
            self.errors.append(frame.args[0])
            self._timeline.add(self.name, f"< -ERR {frame.args[0]}")
        elif frame.verb in {"MSG", "HMSG"}:
            self._deliver(frame)

    def _deliver(self, frame: frames.Frame) -> None:
        status, headers = frames.parse_headers(frame.head)
        delivery = Delivery(frame.subject, frame.reply_to, status, headers, frame.payload)
        self._timeline.add(self.name, f"< {frame.subject} {status or ''} {_short(frame.payload)}")
        sid = frame.args[1]
        if sid == "0":
            future = self._replies.pop(frame.subject, None)
            if future is not None:
                _settle(future, delivery)
        elif sid in self._subscriptions:
            self._subscriptions[sid].queue.put_nowait(delivery)
        else:
            self.errors.append(f"a message for sid {sid}, which this connection never had")

    def _fail_waiting(self, why: str) -> None:
        waiting: list[asyncio.Future[Any]] = [*self._replies.values(), *self._pongs]
        self._replies.clear()
        self._pongs.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(CallFailed("connection_closed", message=why))
                future.exception()


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _short(payload: bytes) -> str:
    text = payload[:160].decode("utf-8", "replace")
    return f"{text}… ({len(payload)} bytes)" if len(payload) > 160 else text


class RawOperations:
    """The operations of the spec over a raw client; arguments are sent whatever they are."""

    def __init__(self, spec: Spec, client: RawClient, timeout_s: float = 5.0) -> None:
        self._spec, self._client, self._timeout_s = spec, client, timeout_s

    async def call(self, method: str, args: Mapping[str, Any], options: CallOptions) -> Any:
        """Makes one call and gives its result; raises CallFailed. Nothing is tried twice."""
        operation = self._spec.by_method.get(method)
        if operation is None:
            raise ScenarioError(f"{method} is no operation of the spec")
        sent = {
            k: v
            for k, v in args.items()
            if operation.parameters.get(k) is None or operation.parameters[k].place != "client"
        }
        request = self._spec.request(operation, sent)
        head = frames.header_block(request.headers) if request.headers else b""
        wait_ms = args.get(operation.timeout_adds, operation.timeout_adds_ms) if operation.timeout_adds else 0
        extra = wait_ms / 1000 if isinstance(wait_ms, (int, float)) and not isinstance(wait_ms, bool) else 0.0
        (future,) = self._client.start_requests([(request.subject, head, request.payload)])
        if options.began:
            options.began()
        try:
            delivery = await asyncio.wait_for(future, self._timeout_s + extra)
        except asyncio.TimeoutError:
            raise CallFailed("timeout", message=f"no reply on {request.subject}") from None
        return self._spec.result(operation, read_reply(delivery))

    async def barrier(self) -> None:
        """Returns when the broker has handled everything this client has sent so far."""
        await self._client.flush()

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()


def read_reply(delivery: Delivery) -> dict[str, Any]:
    """The JSON object of a successful reply; raises CallFailed for every other one."""
    if delivery.status == 503:
        raise CallFailed("no_responders", message="nobody serves this subject")
    try:
        reply = json.loads(delivery.payload)
    except ValueError:
        raise CallFailed("protocol", message=f"no JSON: {_short(delivery.payload)}") from None
    if not isinstance(reply, dict) or not isinstance(reply.get("error"), str):
        raise CallFailed("protocol", message=f"no JSON object with `error`: {_short(delivery.payload)}")
    if reply["error"] or reply.get("code"):
        code = reply.get("code")
        text = reply["error"]
        field_name = text.split(": ", 1)[0] if code == "invalid_argument" and ": " in text else None
        raise CallFailed("server", code if isinstance(code, str) else None, field_name, text)
    return reply


def request_parts(args: Mapping[str, Any]) -> tuple[str, bytes, bytes]:
    """Subject, header block and payload of `raw.request` and `raw.publish`."""
    if "subject" not in args:
        raise ScenarioError("a raw request needs a subject")
    return str(args["subject"]), header_bytes(args.get("headers")), body_bytes(args)


def body_bytes(args: Mapping[str, Any]) -> bytes:
    """The payload of a raw step: one of the payload forms among its arguments, or `payload`, or nothing."""
    if "payload" in args:
        return payload_bytes(args["payload"])
    for form in ("text", "base64", "hex", "json", "repeat", "parts"):
        if form in args:
            return payload_bytes({form: args[form], **({"size": args["size"]} if "size" in args else {})})
    return b""


def header_bytes(headers: Any) -> bytes:
    """A header block of a map (values text, or lists of them) or of [name, value] pairs; empty for none."""
    if not headers:
        return b""
    pairs: list[tuple[str, str | bytes]] = []
    items = headers.items() if isinstance(headers, Mapping) else [tuple(pair) for pair in headers]
    for name, value in items:
        for one in value if isinstance(value, list) else [value]:
            pairs.append((str(name), payload_bytes(one) if isinstance(one, Mapping) else str(one)))
    return frames.header_block(pairs)


__all__ = [
    "Delivery",
    "HarnessError",
    "RawClient",
    "RawOperations",
    "Subscription",
    "body_bytes",
    "header_bytes",
    "read_reply",
    "request_parts",
]
