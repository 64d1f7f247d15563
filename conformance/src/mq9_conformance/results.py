"""How calls end, seen from a scenario, and the clients that make them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class CallFailed(Exception):  # noqa: N818 (an outcome that scenarios expect, no error of the suite)
    """A call that ended with an error, as the SDK, or the raw client, reports it."""

    def __init__(
        self, kind: str, code: str | None = None, field: str | None = None, message: str = ""
    ) -> None:
        super().__init__(f"{kind}{f' {code}' if code else ''}{f' ({field})' if field else ''}: {message}")
        self.kind, self.code, self.field, self.message = kind, code, field, message

    def as_data(self) -> dict[str, Any]:
        """The fields that `expect_error` compares; absent ones are left out."""
        fields = {"kind": self.kind, "code": self.code, "field": self.field, "message": self.message}
        return {name: value for name, value in fields.items() if value is not None}


class HarnessError(Exception):
    """The suite or an adapter could not do its work: never excused, never part of a comparison."""


class Failure(Exception):  # noqa: N818 (a verdict)
    """An assertion of a scenario that does not hold."""


@dataclass(frozen=True)
class CallOptions:
    """What a step asks of a call besides its arguments."""

    decode: tuple[str, ...] = ()
    began: Callable[[], None] | None = None


class OperationClient(Protocol):
    """Something that carries out the operations of the spec: an SDK behind its adapter, or raw requests."""

    async def call(self, method: str, args: Mapping[str, Any], options: CallOptions) -> Any:
        """Makes one call and gives its result; raises CallFailed."""

    async def barrier(self) -> None:
        """Returns when the broker has handled everything this client has sent so far."""

    async def close(self) -> None:
        """Closes the connection."""


Sleeper = Callable[[float], Awaitable[None]]
