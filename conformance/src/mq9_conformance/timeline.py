"""One merged timeline of what every witness saw: adapter, wire, broker and the runner itself."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One line of the timeline; `at` is in seconds since the scenario began."""

    at: float
    witness: str
    text: str

    def __str__(self) -> str:
        return f"{self.at * 1000:8.1f} ms  {self.witness:<8} {self.text}"


@dataclass
class Timeline:
    """Collects entries; the order of `lines` is the order of time."""

    limit: int = 2000
    entries: list[Entry] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _dropped: int = 0

    def add(self, witness: str, text: str) -> None:
        """Notes one thing that a witness saw now."""
        if len(self.entries) >= self.limit:
            self._dropped += 1
            return
        self.entries.append(Entry(time.monotonic() - self._began, witness, text[:600]))

    def lines(self) -> list[str]:
        """The timeline for people."""
        lines = [str(entry) for entry in sorted(self.entries, key=lambda entry: entry.at)]
        if self._dropped:
            lines.append(f"{'':11}  … {self._dropped} more entries were left out")
        return lines

    def as_data(self) -> list[dict[str, Any]]:
        """The timeline for reports."""
        ordered: Iterable[Entry] = sorted(self.entries, key=lambda entry: entry.at)
        return [{"ms": round(e.at * 1000, 1), "witness": e.witness, "text": e.text} for e in ordered]
