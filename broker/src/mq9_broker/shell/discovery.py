"""DISCOVER by words or meaning: one page of what the search index finds. The list of all is the engine's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol

import msgspec

from mq9_broker._generated import errors
from mq9_broker._generated.commands import AgentDiscover
from mq9_broker.engine import Agent, Engine
from mq9_broker.engine.registry import meta_json
from mq9_broker.search.interface import CursorError, Found, Hit, Outcome, Query, Search
from mq9_broker.shell.refusal import RefusedError

_encode_json = msgspec.json.encode
# A page with its agents, their meta, and the continuation.
_REPLY: Final = b'{"error":"","agents":[%b],"meta":[%b]%b}'
_FRAME: Final = len(_REPLY) + len(b',"cursor":""')

_NO_EMBEDDER: Final = errors.unsupported_operation(
    "this broker has no embedder for semantic; use text, or start it with --embedder builtin"
)
_BAD_CURSOR: Final = errors.invalid_argument("cursor", "was in no reply to such a search")


class Registry(Protocol):
    """What is asked of the engine."""

    def agent(self, name: str) -> Agent | None:
        """The registered agent of that name."""


class RegisteredAgents:
    """What is registered in an engine, as search sees it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def body(self, name: str) -> bytes | None:
        """The body of a registered agent, None if it is not registered."""
        agent = self._engine.agent(name)
        return agent.body if agent is not None else None

    def some_after(self, name: str | None, count: int) -> list[tuple[str, bytes]]:
        """Some registered agents after a name, or from the first, in order: their names and bodies."""
        return [(agent.name, agent.body) for agent in islice(self._engine.agents(name), count)]


class _Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a search goes on: after this agent, found with this score and these numbers."""

    score: float
    name: str
    rarities: list[int]


_decode_cursor = msgspec.json.Decoder(_Cursor).decode


class Discovery:
    """Answers DISCOVER with `text` or `semantic`.

    Args:
        registry: The engine.
        search: The index of what is registered.
        max_reply: Bytes after which a page ends; one agent always fits.
    """

    def __init__(self, registry: Registry, search: Search, max_reply: int) -> None:
        self._registry = registry
        self._search = search
        self._max_reply = max_reply

    def answer(self, command: AgentDiscover, reply: Callable[[bytes], None]) -> None:
        """Answer a DISCOVER with `text` or `semantic`, at once or later.

        Raises:
            RefusedError: It asks for meaning, or for a cursor that was in no reply to a search.
        """
        if command.semantic and not self._search.by_meaning:
            raise RefusedError(_NO_EMBEDDER)
        after = _read_cursor(command.cursor) if command.cursor else None
        query = Query(
            text=command.semantic or command.text,
            by_meaning=bool(command.semantic),
            # One more than asked for shows whether there is a next page.
            limit=command.limit + 1,
            skip=0 if after is not None else (command.page - 1) * command.limit,
            after=(after.name, after.score) if after is not None else None,
            rarities=after.rarities if after is not None else None,
        )

        def when_found(outcome: Outcome) -> None:
            if isinstance(outcome, Found):
                reply(self._page(command.limit, outcome))
            elif isinstance(outcome, CursorError):
                reply(_BAD_CURSOR)
            else:
                reply(errors.unavailable(str(outcome)))

        self._search.ask(query, when_found)

    def _page(self, limit: int, found: Found) -> bytes:
        bodies: list[bytes] = []
        metas: list[bytes] = []
        size = _FRAME
        cursor = b""
        for place, hit in enumerate(found.hits):
            if bodies and place == limit:
                return _reply(bodies, metas, cursor)
            agent = self._registry.agent(hit.name)
            if agent is None:
                # Removed since the search. The agents behind it are on this page or the next.
                cursor = _write_cursor(hit, found.rarities)
                continue
            meta = meta_json(agent, _encode_json(hit.score))
            size += len(agent.body) + len(meta) + 2
            if bodies and size + len(cursor) > self._max_reply:
                return _reply(bodies, metas, cursor)
            bodies.append(agent.body)
            metas.append(meta)
            cursor = _write_cursor(hit, found.rarities)
        return _reply(bodies, metas, cursor if len(found.hits) > limit else b"")


def _reply(bodies: list[bytes], metas: list[bytes], cursor: bytes) -> bytes:
    return _REPLY % (b",".join(bodies), b",".join(metas), b',"cursor":"%b"' % cursor if cursor else b"")


def _write_cursor(hit: Hit, rarities: list[int]) -> bytes:
    return base64.urlsafe_b64encode(_encode_json(_Cursor(hit.score, hit.name, rarities)))


def _read_cursor(text: str) -> _Cursor:
    try:
        return _decode_cursor(base64.b64decode(text.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError):
        raise RefusedError(_BAD_CURSOR) from None
