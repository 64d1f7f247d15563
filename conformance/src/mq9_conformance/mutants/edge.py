"""The edge at which most broker mutants sit: requests before the shell sees them, replies on their way out.

Only two things of the broker are touched, both public between its parts: `Shell.handle`, with `handle_all`
that then calls it for each client, and the connection's `send_replies`. They are attributes of classes, so
that a broker that is loaded already gets them too.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..frames import header_block, parse_headers
from ..spec import Spec, find_spec, load_spec

Headers = list[tuple[str, str]]


@dataclass
class Ask:
    """One request, taken apart. What an edit changes here is what the broker gets."""

    operation: str | None
    subject: str
    reply_to: str | None
    headers: Headers
    payload: bytes
    body: dict[str, Any] | None
    connection: Any
    given: dict[str, Any] = field(default_factory=dict)
    """The body as it came."""

    @property
    def address(self) -> str:
        """The mailbox, as far as the subject tells."""
        return self.subject.split(".", 4)[4] if self.subject.count(".") >= 4 else ""

    def header(self, name: str) -> str | None:
        """The first value of a header, in any case; None without it."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def drop_header(self, name: str) -> None:
        """Takes a header away."""
        self.headers = [(key, value) for key, value in self.headers if key.lower() != name]


EditRequest = Callable[[Ask], bool | None]
"""Changes a request; False swallows it."""
EditReply = Callable[[Ask, dict[str, Any]], dict[str, Any]]
"""Gives another reply."""


@dataclass(frozen=True)
class Mutant:
    """One broken piece: what it is, and which requirement it breaks."""

    name: str
    requirement: str
    request: EditRequest | None = None
    reply: EditReply | None = None
    install: Callable[[], None] | None = None


@functools.cache
def protocol() -> Spec:
    """The protocol's definition, read once: brokers that are forked have it from before."""
    return load_spec(find_spec())


def replace_handle(handle: Callable[[Any, Any, Any], int]) -> None:
    """Has the broker of this process handle every request so, those of several clients at once too."""
    from mq9_broker.shell.shell import Shell  # noqa: PLC0415 (only in a broker's process)

    def handle_all(self: Any, parts: Any) -> list[int]:
        return [handle(self, connection, requests) for connection, requests in parts]

    Shell.handle = handle  # type: ignore[method-assign, assignment]
    Shell.handle_all = handle_all  # type: ignore[method-assign]


def install_edits(mutant: Mutant) -> None:
    """Puts a mutant's edits into the broker of this process."""
    from mq9_broker.shell.shell import Shell  # noqa: PLC0415 (only in a broker's process)
    from mq9_broker.transport.connection import Connection  # noqa: PLC0415

    spec = protocol()
    asked: dict[tuple[int, bytes], Ask] = {}
    handle, send_replies = Shell.handle, Connection.send_replies

    def edited_handle(self: Any, connection: Any, requests: Any) -> int:
        for request in requests:  # one by one, so that a reply of the one can matter to the next
            ask = take_apart(spec, connection, request)
            keep = mutant.request(ask) if mutant.request else None
            if keep is False:
                continue
            if ask.reply_to is not None:
                asked[id(connection), ask.reply_to.encode()] = ask
            handle(self, connection, [put_together(ask, request)])
        return len(requests)

    def edited_replies(self: Any, replies: Any) -> None:
        edited = []
        for subject, body in replies:
            ask = asked.pop((id(self), bytes(subject)), None)
            if ask is not None and mutant.reply is not None:
                data = json.loads(body)
                body = json.dumps(mutant.reply(ask, data), ensure_ascii=False).encode()  # noqa: PLW2901
            edited.append((subject, body))
        send_replies(self, edited)

    replace_handle(edited_handle)
    Connection.send_replies = edited_replies  # type: ignore[method-assign]


def take_apart(spec: Spec, connection: Any, request: Any) -> Ask:
    """A request of the transport as an `Ask`."""
    subject_bytes, reply_to, head, payload = request
    subject = bytes(subject_bytes).decode("utf-8", "replace")
    operation = spec.operation_of(subject)
    body = None
    if operation is not None and spec.operations[operation].has_body:
        try:
            body = json.loads(bytes(payload)) if payload else {}
        except ValueError:
            body = None
    if not isinstance(body, dict):
        body = None
    headers = parse_headers(bytes(head))[1] if head else []
    reply = bytes(reply_to).decode() if reply_to is not None else None
    return Ask(operation, subject, reply, headers, bytes(payload), body, connection, dict(body or {}))


def put_together(ask: Ask, request: Any) -> Any:
    """The request that the broker gets; untouched parts stay as they were."""
    subject, reply_to, head, payload = request
    if ask.subject != bytes(subject).decode("utf-8", "replace"):
        subject = ask.subject.encode()
    old = parse_headers(bytes(head))[1] if head else []
    if ask.headers != old:
        head = header_block(ask.headers) if ask.headers else None
    body = json.dumps(ask.body, ensure_ascii=False).encode()
    if ask.body is not None and body != json.dumps(ask.given, ensure_ascii=False).encode():  # 1 is not 1.0
        payload = body
    elif ask.payload != bytes(payload):
        payload = ask.payload
    return (subject, reply_to, head, payload)
