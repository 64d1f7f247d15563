"""The reference broker does what the model says, and a broker with a mistake does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from mq9_broker.engine import sending, settling
from mq9_conformance.lint import lint
from mq9_conformance.model.comparison import Difference, Step, as_scenario, compare, shortest
from mq9_conformance.model.sequences import sequences
from mq9_conformance.scenario import load_file
from mq9_conformance.spec import find_spec, load_spec

ROOT = Path(__file__).resolve().parent.parent.parent
SPEC = load_spec(find_spec())
# What a shrunk difference becomes; look here when the first test fails.
FOUND = ROOT / "reports" / "model-difference.yaml"
NO_CHECKS = list(HealthCheck)
# Planted bugs are looked for in the same order each time: by chance alone it takes one second or a hundred.
SEED = 1


def write(difference: Difference, path: Path) -> None:
    """Keeps the steps that lead to a difference as a scenario."""
    path.parent.mkdir(exist_ok=True)
    steps = shortest(SPEC, difference.steps)
    path.write_text(as_scenario(steps, "model/difference", ["REPLY-001"]), encoding="utf-8")


@given(sequences())
@settings(max_examples=500, deadline=None, suppress_health_check=NO_CHECKS)
def test_broker_does_what_the_model_says(steps: Sequence[Step]) -> None:
    difference = compare(SPEC, steps)
    if difference is not None:
        write(difference, FOUND)
    assert difference is None, f"{difference}\nas a scenario: {FOUND}"


def any_lease_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """NACK and RENEW ignore the lease they name."""
    held = settling._held
    monkeypatch.setattr(settling, "_held", lambda *arguments: held(*arguments[:-1], ""))


def one_delivery_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """max_deliveries is taken for the number of redeliveries."""
    end_deliveries = settling.end_deliveries

    def planted(state: Any, mailbox: Any, group: Any, ended: list[tuple[int, int]], delay_ms: int) -> None:
        end_deliveries(state, mailbox, group, [(i, packed - 4) for i, packed in ended], delay_ms)

    monkeypatch.setattr(settling, "end_deliveries", planted)


def nack_comes_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """NACK forgets its delay."""
    end_deliveries = settling.end_deliveries
    monkeypatch.setattr(settling, "end_deliveries", lambda *arguments: end_deliveries(*arguments[:-1], 0))


def dedup_window_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dedup-id is forgotten after a second."""
    monkeypatch.setattr(sending, "DEDUP_WINDOW", 1_000)


def ttl_from_the_due_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delayed message lives its ttl from when it becomes due."""
    message = sending._message

    def planted(msg_id: int, content: tuple[Any, ...]) -> Any:
        *others, expires_ms = content
        return message(msg_id, (*others, expires_ms and expires_ms + 1_000))

    monkeypatch.setattr(sending, "_message", planted)


PLANTED = [
    any_lease_will_do,
    one_delivery_too_many,
    nack_comes_back_at_once,
    dedup_window_too_short,
    ttl_from_the_due_moment,
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("plant", PLANTED)
def test_planted_bugs_are_found(plant: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(monkeypatch)
    options = settings(
        max_examples=20_000,
        database=None,
        deadline=None,
        suppress_health_check=NO_CHECKS,
        phases=[Phase.generate],  # `shortest` leaves out steps in a tenth of the time
    )
    random = Random(SEED)
    steps: Sequence[Step] = ()
    for _ in range(3):  # now and then nothing can be left out of more than a few steps
        found = find(
            sequences(), lambda steps: compare(SPEC, steps) is not None, settings=options, random=random
        )
        steps = shortest(SPEC, found)
        if len(steps) <= 9:
            break
    difference = compare(SPEC, steps)
    assert difference is not None
    assert len(steps) <= 9, str(difference)
    write(difference, tmp_path / "found.yaml")
    [scenario] = load_file(tmp_path / "found.yaml")
    assert lint([scenario], SPEC) == []
    assert len(scenario.steps) == len(difference.steps)
