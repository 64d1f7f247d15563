"""The broker's time: one number, Unix time in milliseconds, from one of two sources."""

import time
from typing import Protocol


class Clock(Protocol):
    """What tells the broker the time that every stored deadline is compared with."""

    def now_ms(self) -> int:
        """Return the Unix time in milliseconds."""


class WallClock:
    """The computer's clock."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Return the Unix time in milliseconds."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that stands still until somebody moves it (`--test-clock`).

    Args:
        start_ms: Unix time in milliseconds to start at; the computer's time when left out.
    """

    __slots__ = ("_now_ms",)

    def __init__(self, start_ms: int | None = None) -> None:
        self._now_ms = WallClock().now_ms() if start_ms is None else start_ms

    def now_ms(self) -> int:
        """Return the Unix time in milliseconds."""
        return self._now_ms

    def advance(self, milliseconds: int) -> int:
        """Move the clock forward and return the new time.

        Raises:
            ValueError: `milliseconds` is negative; time never goes back.
        """
        if milliseconds < 0:
            raise ValueError(f"advance_ms: expected 0 or more, got {milliseconds}")
        self._now_ms += milliseconds
        return self._now_ms
