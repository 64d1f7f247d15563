"""What the demo's verdicts count as kept, and as broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from coordinator import LONGEST_PART, parts
from rich.console import Console
from run import Stage, verdicts

DEMO = Path(__file__).resolve().parent.parent / "demo"
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


@pytest.mark.parametrize(
    "text", ["", "one line", "a\n" * 100, "x" * 400_000, "y" * 149_999 + "\n" + "z\n" * 9]
)
def test_parts_of_a_text_make_the_text_and_each_fits_a_message(text: str) -> None:
    pieces = parts("book.txt", text, 12)
    assert "".join(pieces.values()) == text
    assert len(pieces) <= 12
    assert all(0 < len(piece) <= LONGEST_PART for piece in pieces.values()) or not text


def test_a_short_text_is_shared_out_and_a_single_line_is_not() -> None:
    assert list(parts("book.txt", "a\nb\nc\n", 3)) == [
        "book.txt (1 of 3)",
        "book.txt (2 of 3)",
        "book.txt (3 of 3)",
    ]
    assert list(parts("book.txt", "a\nb\nc\n", 1)) == ["book.txt"]
    assert list(parts("book.txt", "one line\n", 12)) == ["book.txt"]


@pytest.mark.parametrize("lines", [1, 20])
def test_the_demo_works_on_one_file_however_short(tmp_path: Path, lines: int) -> None:
    text = tmp_path / "note.txt"
    text.write_text("Every agent has a mailbox.\n" * lines, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, DEMO / "run.py", "--input", text],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
