"""DISCOVER: which agents, in which order, one page at a time."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, Protocol

import msgspec

from mq9_broker._generated import errors
from mq9_broker._generated.commands import AgentDiscover
from mq9_broker.engine import Agent
from mq9_broker.shell.bodies import decode_json
from mq9_broker.shell.refusal import RefusedError
from mq9_broker.shell.search import Hit, KeywordIndex

_encode_json = msgspec.json.encode
_HEAD: Final = b'{"error":"","agents":['


class Registry(Protocol):
    """What is asked of the engine."""

    def agent(self, name: str) -> Agent | None:
        """The registered agent of that name."""

    def agents(self, after: str = "") -> Iterator[Agent]:
        """Registered agents whose name comes after that one, by name in byte order."""


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a listing goes on: after this agent, at this score (0 in a list by name)."""

    score: float
    name: str


_decode_cursor = msgspec.json.Decoder(_Cursor).decode


class Discovery:
    """Answers DISCOVER from the engine's registry and a search index derived from it.

    Args:
        registry: The engine.
        max_reply: Bytes after which a page ends; one agent always fits.
    """

    def __init__(self, registry: Registry, max_reply: int) -> None:
        self._registry = registry
        self._max_reply = max_reply
        self._index = KeywordIndex()

    def fill(self) -> None:
        """Index every registered agent; called once at the start."""
        for agent in self._registry.agents():
            self._index.put(agent.name, strings(agent.body))

    def changed(self, name: str) -> None:
        """Index an agent again, or forget it if it is registered no more."""
        agent = self._registry.agent(name)
        if agent is None:
            self._index.remove(name)
        else:
            self._index.put(name, strings(agent.body))

    def answer(self, command: AgentDiscover) -> bytes:
        """Return the reply of a DISCOVER.

        Raises:
            RefusedError: It asks for meaning, or for a cursor that never was in a reply.
        """
        if command.semantic:
            raise RefusedError(
                errors.unsupported_operation("this broker has no embedder for semantic; use text")
            )
        cursor = _read_cursor(command.cursor) if command.cursor else None
        skip = 0 if cursor is not None else (command.page - 1) * command.limit
        if command.text:
            after = Hit(cursor.name, cursor.score) if cursor is not None else None
            hits = self._index.search(command.text, command.limit + 1, skip=skip, after=after)
            found = ((self._registry.agent(hit.name), hit.score) for hit in hits)
            return self._page(((agent, score) for agent, score in found if agent is not None), command.limit)
        listed = self._registry.agents(cursor.name if cursor is not None else "")
        return self._page(((agent, None) for agent in islice(listed, skip, None)), command.limit)

    def _page(self, found: Iterable[tuple[Agent, float | None]], limit: int) -> bytes:
        bodies: list[bytes] = []
        metas: list[bytes] = []
        size = 0
        last: _Cursor | None = None
        more = False
        for agent, score in found:
            meta = _meta(agent, score)
            size += len(agent.body) + len(meta) + 2
            if bodies and (len(bodies) == limit or size > self._max_reply):
                more = True
                break
            bodies.append(agent.body)
            metas.append(meta)
            last = _Cursor(score or 0.0, agent.name)
        tail = b',"cursor":"%b"}' % _write_cursor(last) if more and last is not None else b"}"
        return b'%b%b],"meta":[%b]%b' % (_HEAD, b",".join(bodies), b",".join(metas), tail)


def strings(body: bytes) -> list[str]:
    """Return every string in a JSON text, names of members left out."""
    found: list[str] = []
    stack: list[Any] = [decode_json(body)]
    while stack:
        value = stack.pop()
        if type(value) is str:
            found.append(value)
        elif type(value) is dict:
            stack += reversed(value.values())
        elif type(value) is list:
            stack += reversed(value)
    return found


def _meta(agent: Agent, score: float | None) -> bytes:
    return b'{%b"last_seen":%d,"registered_at":%d%b}' % (
        b'"score":%b,' % _encode_json(score) if score is not None else b"",
        agent.last_seen,
        agent.registered_at,
        b',"status":%b' % agent.status if agent.status is not None else b"",
    )


def _write_cursor(cursor: _Cursor) -> bytes:
    return base64.urlsafe_b64encode(_encode_json(cursor))


def _read_cursor(text: str) -> _Cursor:
    try:
        return _decode_cursor(base64.b64decode(text.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusedError(errors.invalid_argument("cursor", "was in no reply of this broker")) from None
