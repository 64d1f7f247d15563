"""A store that fails now and then: nothing is half done, and what was answered is there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from mq9_broker.engine import Engine
from mq9_broker.engine.checking import check_store
from mq9_broker.engine.commands import decode_command
from mq9_broker.store import Batch, MemoryStore, StoreUnavailableError

from .random_commands import random_calls
from .replay import LIMITS, everything


class FailingStore(MemoryStore):
    """Fails once, at an operation that a test chooses; a write has done nothing then."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0
        """Operations until it fails, that one included; 0 = it does not."""
        self.get = self._failing(self.get)
        self.first = self._failing(self.first)
        self.last = self._failing(self.last)

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            raise StoreUnavailableError("injected")
        self.left = max(self.left, 0)

    def _failing(self, read: Any) -> Any:
        def reading(*arguments: Any) -> Any:
            self._count()
            return read(*arguments)

        return reading

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._count()
        return super().scan(start, end)

    def write(self, batch: Batch) -> None:
        self._count()
        super().write(batch)


@pytest.mark.parametrize("seed", range(6))
def test_calls_that_failed_have_done_nothing(seed: int) -> None:
    """Over a store that fails, with each failed call made again, all is as over one that never fails."""
    rnd = random.Random(seed)
    store, sound = FailingStore(), MemoryStore()
    engine, other = Engine(store, LIMITS), Engine(sound, LIMITS)
    failed = 0
    for number, (now, forms) in enumerate(random_calls(seed=200 + seed, total=1_000)):
        commands = [decode_command(form) for form in forms]
        for _ in range(3):
            store.left = rnd.choice((1, 2, 3, 5, 10, 30, 100))
            try:
                applied = engine.apply(now, commands)
            except StoreUnavailableError:
                failed += 1
                continue
            break
        else:
            store.left = 0
            applied = engine.apply(now, commands)
        store.left = 0
        assert applied == other.apply(now, commands), f"call {number}"
        if number % 20 == 0:
            assert everything(store) == everything(sound), f"call {number}"
    assert failed > 100
    assert everything(store) == everything(sound)
    assert list(check_store(store)) == []


@pytest.mark.parametrize("seed", range(4))
def test_calls_that_are_given_up_leave_a_sound_store(seed: int) -> None:
    """Failed calls are not made again, and the engine goes on; a new engine over the store agrees with it."""
    rnd = random.Random(seed)
    store = FailingStore()
    engine = Engine(store, LIMITS)
    failed = 0
    for number, (now, forms) in enumerate(random_calls(seed=300 + seed, total=1_000)):
        store.left = rnd.choice((0, 0, 1, 5, 20))
        try:
            engine.apply(now, [decode_command(form) for form in forms])
        except StoreUnavailableError:
            failed += 1
        store.left = 0
        if number % 50 == 0:
            assert list(check_store(store)) == [], f"call {number}"
    assert failed > 20
    assert list(check_store(store)) == []
    twin = MemoryStore()
    twin.write(Batch((), everything(store)))
    later = engine.time_ms
    fresh = Engine(twin, LIMITS)
    for now, forms in random_calls(seed=400 + seed, total=200):
        commands = [decode_command(form) for form in forms]
        assert engine.apply(later + now, commands) == fresh.apply(later + now, commands)
    assert everything(store) == everything(twin)
