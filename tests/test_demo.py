"""What the demo's verdicts count as kept, and as broken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from rich.console import Console
from run import Stage, verdicts

PRIORITIES = ["critical", "urgent", "urgent", "normal", "normal"]


def starts(*tasks: tuple[str, int]) -> list[dict[str, Any]]:
    """Events of workers that begin these tasks (worker, place in PRIORITIES), in the order they were seen."""
    return [
        {
            "who": who,
            "kind": "start",
            "document": f"d{index}",
            "priority": PRIORITIES[index],
            "delivery": 1,
        }
        for who, index in tasks
    ]


def order_is_kept(events: list[dict[str, Any]]) -> bool:
    """The verdict on the order of the tasks."""
    return verdicts(Stage(Console(quiet=True), events=events))[0][1]


@pytest.mark.parametrize("seen_first", ["counter-1", "counter-2"])
def test_two_workers_that_begin_at_once_may_be_seen_in_either_order(seen_first: str) -> None:
    first = starts(("counter-1", 0), ("counter-2", 1))
    if seen_first == "counter-2":
        first.reverse()
    assert order_is_kept(first + starts(("counter-1", 2), ("counter-2", 3), ("counter-1", 4)))


def test_a_worker_that_is_given_a_normal_task_before_an_urgent_one_breaks_the_order() -> None:
    assert not order_is_kept(starts(("counter-1", 0), ("counter-2", 3), ("counter-2", 1)))


def test_a_critical_task_begun_after_a_normal_one_was_done_breaks_the_order() -> None:
    assert not order_is_kept(starts(("counter-1", 3), ("counter-1", 4), ("counter-2", 0)))


def test_an_order_that_nobody_saw_is_not_kept() -> None:
    assert not order_is_kept([])
