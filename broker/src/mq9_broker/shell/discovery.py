"""DISCOVER by keyword: which agents, in which order, one page at a time. The list of all is the engine's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from mq9_broker._generated import errors
from mq9_broker._generated.commands import AgentDiscover
from mq9_broker.engine import Agent
from mq9_broker.engine.registry import meta_json
from mq9_broker.shell.bodies import decode_json
from mq9_broker.shell.refusal import RefusedError
from mq9_broker.shell.search import Hit, KeywordIndex

_encode_json = msgspec.json.encode
# A page with its agents, their meta, and the continuation.
_REPLY: Final = b'{"error":"","agents":[%b],"meta":[%b]%b}'
_FRAME: Final = len(_REPLY) + len(b',"cursor":""')


class Registry(Protocol):
    """What is asked of the engine."""

    def agent(self, name: str) -> Agent | None:
        """The registered agent of that name."""

    def agents(self) -> Iterator[Agent]:
        """All registered agents by name in byte order."""


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a search goes on: after this agent, found with this score."""

    score: float
    name: str


_decode_cursor = msgspec.json.Decoder(_Cursor).decode


class Discovery:
    """Answers DISCOVER with `text` from a search index that is derived from the engine's registry.

    Args:
        registry: The engine.
        max_reply: Bytes after which a page ends; one agent always fits.
    """

    def __init__(self, registry: Registry, max_reply: int) -> None:
        self._registry = registry
        self._max_reply = max_reply
        self._index = KeywordIndex()

    def __len__(self) -> int:
        """How many agents are indexed."""
        return len(self._index)

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
        """Return the reply of a DISCOVER with `text` or `semantic`.

        Raises:
            RefusedError: It asks for meaning, or for a cursor that was in no reply to a search.
        """
        if command.semantic:
            raise RefusedError(
                errors.unsupported_operation("this broker has no embedder for semantic; use text")
            )
        after = _read_cursor(command.cursor) if command.cursor else None
        skip = 0 if after is not None else (command.page - 1) * command.limit
        bodies: list[bytes] = []
        metas: list[bytes] = []
        size = _FRAME
        cursor = b""
        for hit in self._index.search(command.text, command.limit + 1, skip=skip, after=after):
            agent = self._registry.agent(hit.name)
            if agent is None:
                raise LookupError(f"agent {hit.name!r} is in the search index, but not in the registry")
            meta = meta_json(agent, _encode_json(hit.score))
            size += len(agent.body) + len(meta) + 2
            if bodies and (len(bodies) == command.limit or size + len(cursor) > self._max_reply):
                return _page(bodies, metas, cursor)
            bodies.append(agent.body)
            metas.append(meta)
            cursor = _write_cursor(hit)
        return _page(bodies, metas, b"")


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


def _page(bodies: list[bytes], metas: list[bytes], cursor: bytes) -> bytes:
    return _REPLY % (b",".join(bodies), b",".join(metas), b',"cursor":"%b"' % cursor if cursor else b"")


def _write_cursor(hit: Hit) -> bytes:
    return base64.urlsafe_b64encode(_encode_json(_Cursor(hit.score, hit.name)))


def _read_cursor(text: str) -> Hit:
    try:
        cursor = _decode_cursor(base64.b64decode(text.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError):
        raise RefusedError(
            errors.invalid_argument("cursor", "was in no reply to a search with text")
        ) from None
    return Hit(cursor.name, cursor.score)
