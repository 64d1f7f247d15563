"""What the broker and the search process say to each other: msgpack, each message after its length."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from mq9_broker.search.interface import Query
from mq9_broker.search.settings import SearchSettings

_LENGTH: Final = struct.Struct("<I")


class Settings(msgspec.Struct, tag="settings", array_like=True, frozen=True):
    """The first message to the process."""

    settings: SearchSettings
    log_levels: str
    log_format: str


class Put(msgspec.Struct, tag="put", array_like=True, frozen=True):
    """An agent was registered, or replaced."""

    name: str
    body: bytes


class Remove(msgspec.Struct, tag="remove", array_like=True, frozen=True):
    """An agent is registered no more."""

    name: str


class Filled(msgspec.Struct, tag="filled", array_like=True, frozen=True):
    """All agents that were registered at the start have been put."""


class Ask(msgspec.Struct, tag="ask", array_like=True, frozen=True):
    """A query, to be answered by `Answer` or `Refuse` with the same number."""

    number: int
    query: Query


class Answer(msgspec.Struct, tag="answer", array_like=True, frozen=True):
    """What was found."""

    number: int
    hits: list[tuple[str, float]]
    rarities: list[int]


class Refuse(msgspec.Struct, tag="refuse", array_like=True, frozen=True):
    """The cursor does not belong to the query."""

    number: int


class Failed(msgspec.Struct, tag="failed", array_like=True, frozen=True):
    """A query ended in a way that it should not; the process has logged it."""

    number: int


class Again(msgspec.Struct, tag="again", array_like=True, frozen=True):
    """All agents have to be put again: the embedder makes other vectors than before."""


class Status(msgspec.Struct, tag="status", array_like=True, frozen=True):
    """Numbers for a page of metrics, sent when they have changed, a few times a second at most."""

    agents: int
    words: int
    waiting: int
    embedder_failures: int
    resident_bytes: int


ToProcess = Settings | Put | Remove | Filled | Ask
FromProcess = Answer | Refuse | Failed | Again | Status

_encode = msgspec.msgpack.Encoder().encode
read_to_process = msgspec.msgpack.Decoder(ToProcess).decode
read_from_process = msgspec.msgpack.Decoder(FromProcess).decode


def frame(message: ToProcess | FromProcess) -> bytes:
    """Return a message as it is sent."""
    data = _encode(message)
    return _LENGTH.pack(len(data)) + data


class Frames:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes, and return the messages that are complete now."""
        self._buffer += data
        start = 0
        found: list[bytes] = []
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return iter(found)
