"""NATS frames: an incremental parser for both directions, and writers for the few frames the suite sends."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Headers = list[tuple[str, str]]

_WITH_PAYLOAD = {b"PUB": False, b"MSG": False, b"HPUB": True, b"HMSG": True}


class FrameError(Exception):
    """Bytes that are no NATS frame."""


@dataclass(slots=True)
class Frame:
    """One frame as it came: `raw` is its exact bytes, so that it can be passed on untouched."""

    verb: str
    args: list[str]
    raw: bytes
    head: bytes = b""
    payload: bytes = b""

    @property
    def subject(self) -> str:
        """The subject of a PUB, HPUB, MSG, HMSG or SUB frame."""
        return self.args[0]

    @property
    def reply_to(self) -> str | None:
        """The reply subject of a frame with a payload, None without one."""
        plain = {"PUB": 2, "HPUB": 3, "MSG": 3, "HMSG": 4}[self.verb]
        if len(self.args) > plain:
            return self.args[1] if self.verb in {"PUB", "HPUB"} else self.args[2]
        return None

    @property
    def headers(self) -> Headers:
        """The header lines in order; empty without any."""
        return parse_headers(self.head)[1]

    @property
    def status(self) -> int | None:
        """The status code of the header block's first line, None if there is none."""
        return parse_headers(self.head)[0]


@dataclass
class FrameParser:
    """Cuts a stream of bytes into frames; what is not complete yet waits for more."""

    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[Frame]:
        """Takes more bytes and gives the frames that are complete now."""
        self._buffer += data
        frames: list[Frame] = []
        while True:
            frame, used = self._next()
            if frame is None:
                return frames
            del self._buffer[:used]
            frames.append(frame)

    def _next(self) -> tuple[Frame | None, int]:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return None, 0
        line = bytes(self._buffer[:end])
        verb_bytes, _, rest = line.partition(b" ")
        verb = verb_bytes.upper()
        if verb in _WITH_PAYLOAD:
            args = rest.decode("utf-8", "replace").split()
            try:
                total = int(args[-1])
                head_size = int(args[-2]) if _WITH_PAYLOAD[verb] else 0
            except (ValueError, IndexError) as error:
                raise FrameError(f"no sizes in {line[:80]!r}") from error
            start, stop = end + 2, end + 2 + total
            if len(self._buffer) < stop + 2:
                return None, 0
            body = bytes(self._buffer[start:stop])
            raw = bytes(self._buffer[: stop + 2])
            return Frame(verb.decode(), args, raw, body[:head_size], body[head_size:]), stop + 2
        text = rest.decode("utf-8", "replace")
        args = [text] if verb in {b"INFO", b"CONNECT", b"-ERR"} else text.split()
        return Frame(verb.decode("utf-8", "replace"), args, line + b"\r\n"), end + 2


def parse_headers(head: bytes) -> tuple[int | None, Headers]:
    """Splits a header block into the status of its first line, None without one, and its lines in order."""
    if not head:
        return None, []
    first, *lines = head.decode("utf-8", "replace").split("\r\n")
    words = first.split()
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else None
    headers: Headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name, value.strip()))
    return status, headers


def header_block(headers: Iterable[tuple[str, str | bytes]], status: str = "") -> bytes:
    """Writes a header block, values as they are: nothing is checked here."""
    block = bytearray(b"NATS/1.0" + (b" " + status.encode() if status else b"") + b"\r\n")
    for name, value in headers:
        block += name.encode() + b": " + (value.encode() if isinstance(value, str) else value) + b"\r\n"
    return bytes(block + b"\r\n")


def publish(subject: str, reply_to: str | None, headers: bytes, payload: bytes) -> bytes:
    """A PUB or, with a header block, an HPUB frame."""
    target = f"{subject} {reply_to}" if reply_to else subject
    if headers:
        return (
            f"HPUB {target} {len(headers)} {len(headers) + len(payload)}\r\n".encode()
            + headers
            + payload
            + b"\r\n"
        )
    return f"PUB {target} {len(payload)}\r\n".encode() + payload + b"\r\n"


def message(subject: str, sid: str, headers: bytes, payload: bytes) -> bytes:
    """A MSG or, with a header block, an HMSG frame without reply subject."""
    if headers:
        total = len(headers) + len(payload)
        return f"HMSG {subject} {sid} {len(headers)} {total}\r\n".encode() + headers + payload + b"\r\n"
    return f"MSG {subject} {sid} {len(payload)}\r\n".encode() + payload + b"\r\n"


def info(options: dict[str, Any]) -> bytes:
    """An INFO frame."""
    return b"INFO " + json.dumps(options, separators=(",", ":")).encode() + b"\r\n"


def subject_matches(pattern: str, subject: str) -> bool:
    """Says whether a subscription's subject, wildcards included, covers a subject."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(given) > index
        if index >= len(given) or part not in {"*", given[index]}:
            return False
    return len(wanted) == len(given)
