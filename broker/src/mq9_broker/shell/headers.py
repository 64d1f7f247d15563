"""From the header block of a SEND to what the engine needs of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from mq9_broker._generated import errors
from mq9_broker.engine.commands import LANE_NORMAL, PRIORITIES, SendOptions
from mq9_broker.shell.bodies import decimal, field_check
from mq9_broker.shell.description import Field, Operation
from mq9_broker.shell.refusal import RefusedError

# Header blocks are often the same for message after message (a priority, a content type): short ones are
# remembered.
_REMEMBERED_BYTES: Final = 200
_REMEMBERED_BLOCKS: Final = 4096

_BLANKS: Final = " \t"
_FIRST_LINE: Final = "NATS/1.0"

_encode_json = msgspec.json.encode

# (lane, headers, options): see `mq9_broker.engine.commands.SendCommand`.
SendHeaders = tuple[int, bytes, SendOptions | None]


class HeaderDecoder:
    """Decodes the header blocks of SEND."""

    def __init__(self, operation: Operation) -> None:
        self._readers = {f.path[0].lower(): (f.name, _reader(f)) for f in operation.headers}
        self._remembered: dict[bytes, SendHeaders] = {}

    def decode(self, block: bytes) -> SendHeaders:
        """Return what a NATS header block (from its first line to its empty one) says to the broker.

        Raises:
            RefusedError: A header that the broker interprets is wrong, or the block is not UTF-8.
        """
        remembered = self._remembered.get(block)
        if remembered is not None:
            return remembered
        found = self._decode(block)
        if len(block) <= _REMEMBERED_BYTES:
            if len(self._remembered) >= _REMEMBERED_BLOCKS:
                self._remembered.clear()
            self._remembered[block] = found
        return found

    def _decode(self, block: bytes) -> SendHeaders:
        try:
            lines = block.decode().split("\r\n")
        except UnicodeDecodeError:
            raise RefusedError(errors.invalid_argument("headers", "are not UTF-8")) from None
        if not lines[0].startswith(_FIRST_LINE):
            why = f"begin with {lines[0][:60]!r}, not with {_FIRST_LINE}"
            raise RefusedError(errors.invalid_argument("headers", why))
        interpreted: dict[str, list[str]] = {}
        kept: dict[str, list[str]] = {}
        readers = self._readers
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                if line:
                    why = f"a line without a colon: {line[:60]!r}"
                    raise RefusedError(errors.invalid_argument("headers", why))
                continue
            value = value.strip(_BLANKS)
            lower = name.lower() if name.isascii() else name  # the Kelvin sign is no k
            if lower in readers:
                interpreted.setdefault(lower, []).append(value)
            else:
                kept.setdefault(name, []).append(value)
        values: dict[str, Any] = {}
        for lower, texts in interpreted.items():
            argument, read = readers[lower]
            value = read(texts)
            if value is not None:
                values[argument] = value
        priority = values.pop("priority", None)
        lane = PRIORITIES.index(priority) if priority is not None else LANE_NORMAL
        options = SendOptions(
            key=values.get("key", ""),
            delay_s=values.get("delay", 0),
            ttl_s=values.get("ttl", 0),
            tags=values.get("tags", ()),
            dedup_id=values.get("dedup_id", ""),
        )
        return lane, _encode_json(kept) if kept else b"", options if any(options) else None


def _reader(field: Field) -> Callable[[list[str]], Any]:
    """Return a function that reads what the values of a header say; None if they say nothing."""
    if field.kind == "integer":
        return lambda texts: decimal(texts[0], field) if texts[0] else None
    check = field_check(field)
    if field.kind == "string":
        return lambda texts: check(texts[0]) if texts[0] else None
    if field.kind != "list":
        raise ValueError(f"{field.name}: a header can't be of the kind {field.kind}")

    def read_list(texts: list[str]) -> Any:
        joined = ",".join(texts) if field.join else texts[0]
        items = [part for part in (p.strip(_BLANKS) for p in joined.split(",")) if part]
        return check(items) if items else None

    return read_list
