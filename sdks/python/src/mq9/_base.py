"""What the generated code stands on: the base of all errors, operations, defaults that are not sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

Payload: TypeAlias = (
    bytes | bytearray | memoryview | str | Mapping[str, Any] | Sequence[Any] | int | float | bool | None
)
"""What a message may carry: bytes, text (sent as UTF-8), or a JSON value."""


class Mq9Error(Exception):
    """Base of every error that this package raises on purpose.

    Cancellation is not among them: `asyncio.CancelledError` passes through untouched.

    Attributes:
        kind: How the call failed: `server`, `invalid_argument`, `timeout`, `no_responders`,
            `connection_closed` or `protocol`.
        code: The broker's code (`mailbox_not_found`, ...), also one that this version does not know; None if
            there is none.
        field: For `invalid_argument`: the argument that was wrong; else None.
        operation: The operation that failed, such as `msg.send`; None if it was no operation.
    """

    kind: str = ""
    code: str | None = None
    field: str | None = None
    operation: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        if field is not None:
            self.field = field
        if operation is not None:
            self.operation = operation

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class Operation(NamedTuple):
    """What the runtime has to know of an operation; generated from the specification.

    Attributes:
        name: Its name, such as `msg.send`.
        retries_on: The kinds of failure, and codes, after which it may be tried again.
        give_up_ms: When retries end, in milliseconds after the first attempt; 0 = only the number of attempts
            counts.
    """

    name: str
    retries_on: frozenset[str]
    give_up_ms: int = 0


class OmittedInt(int):
    """An integer default that a signature shows but that is not sent; known by its identity."""

    __slots__ = ()


class OmittedStr(str):
    """Likewise for text."""

    __slots__ = ()
