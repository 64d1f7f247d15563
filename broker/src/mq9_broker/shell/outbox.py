"""Dead letters on their way: out of the mailbox whose group gave up, into the dead-letter mailbox.

The engine keeps a dead letter in the source mailbox until it is told that the copy has been sent. Sending and
telling are two calls of the engine: a crash between them sends the copy again, under the same dedup-id, and
loses none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from mq9_broker._generated import errors
from mq9_broker.engine import Result
from mq9_broker.engine.commands import Command, OutboxRemove
from mq9_broker.engine.effects import DeadLetter, Effect
from mq9_broker.shell.counters import Counters


class _Code(msgspec.Struct):
    code: str = ""


_decode: Final[Callable[[bytes], _Code]] = msgspec.json.Decoder(_Code).decode


class Outbox:
    """Dead letters that are to be delivered now.

    Args:
        apply: Carries out commands at a time (ms); never raises.
        take_in: Takes in the effects.
        counters: Where deliveries and drops are counted.

    Attributes:
        letters: What is to be delivered.
    """

    def __init__(
        self,
        apply: Callable[[int, Sequence[Command]], Sequence[Result]],
        take_in: Callable[[Iterable[Effect]], None],
        counters: Counters,
    ) -> None:
        self._apply = apply
        self._take_in = take_in
        self._counters = counters
        self.letters: list[DeadLetter] = []

    def __bool__(self) -> bool:
        """Whether there is anything to deliver."""
        return bool(self.letters)

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Note dead letters; `deliver` delivers them."""
        self.letters += letters

    def deliver(self, now_ms: int) -> list[DeadLetter]:
        """Send each copy and take it out of its outbox; return what the broker failed to do.

        A dead-letter mailbox that is missing or full is no failure: the copy is dropped and counted.
        """
        letters, self.letters = self.letters, []
        sent: list[DeadLetter] = []
        failed: list[DeadLetter] = []
        results = self._apply(now_ms, [letter.send for letter in letters])
        for letter, (reply, effects) in zip(letters, results, strict=True):
            self._take_in(effects)
            code = _code_of(reply)
            if code in (errors.INTERNAL, errors.UNAVAILABLE):
                failed.append(letter)
                continue
            sent.append(letter)
            if code:
                self._counters.dead_letters_dropped[code] += 1
            else:
                self._counters.dead_letters_delivered += 1
        removals = [OutboxRemove(letter.source, letter.incarnation, letter.entry) for letter in sent]
        for letter, (reply, effects) in zip(sent, self._apply(now_ms, removals), strict=True):
            self._take_in(effects)
            if _code_of(reply):
                failed.append(letter)
        return failed


def _code_of(reply: bytes) -> str:
    """Return the error code of a reply; the removal of an entry answers nothing."""
    return _decode(reply).code if reply else ""
