"""What passed need not run again, until something changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


class Place:
    """A repository with one folder, in which a command notes each of its runs."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.runs = root, root / "sdk", root / "runs.txt"
        self.folder.mkdir(parents=True)
        (root / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "once.py", root / "tools")
        (self.folder / "source.txt").write_text("one", "utf-8")
        (self.folder / ".gitignore").write_text("built/\n", "utf-8")
        (root / "beside.txt").write_text("one", "utf-8")
        (root / "version.txt").write_text("1", "utf-8")

    def run(self, code: int = 0, **environment: str) -> int:
        """Runs the command through once.py; gives the exit code."""
        command = f"import sys; open({str(self.runs)!r}, 'a').write('x'); sys.exit({code})"
        script = [sys.executable, str(self.root / "tools" / "once.py"), "lint"]
        options = ["--tool", "cat ../version.txt", "--file", "../beside.txt", "--"]
        own = {name: value for name, value in os.environ.items() if name != "STRICT"}
        return subprocess.call(
            [*script, *options, sys.executable, "-c", command], cwd=self.folder, env={**own, **environment}
        )

    @property
    def count(self) -> int:
        """How often the command ran."""
        return len(self.runs.read_text("utf-8"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A fresh one, known to git."""
    made = Place(tmp_path / "repository")
    subprocess.run(["git", "init", "-q"], cwd=made.root, check=True)
    return made


def test_what_passed_does_not_run_again(place: Place) -> None:
    assert [place.run(), place.run(), place.count] == [0, 0, 1]


def test_equal_bytes_under_a_new_time_are_no_change(place: Place) -> None:
    place.run()
    (place.folder / "source.txt").write_text("one", "utf-8")
    os.utime(place.folder / "source.txt", (1, 1))
    (place.folder / "built").mkdir()
    (place.folder / "built" / "x").touch()
    assert [place.run(), place.count] == [0, 1]


@pytest.mark.parametrize("file", ["sdk/source.txt", "sdk/new.txt", "beside.txt", "version.txt"])
def test_a_changed_file_or_tool_makes_it_run(place: Place, file: str) -> None:
    place.run()
    (place.root / file).write_text("two", "utf-8")
    assert [place.run(), place.count] == [0, 2]


def test_a_file_that_went_makes_it_run(place: Place) -> None:
    subprocess.run(["git", "add", "-A"], cwd=place.root, check=True)
    place.run()
    (place.folder / "source.txt").unlink()
    assert [place.run(), place.count] == [0, 2]


def test_what_failed_runs_again(place: Place) -> None:
    assert [place.run(1), place.run(1), place.count] == [1, 1, 2]


def test_strict_always_runs(place: Place) -> None:
    assert [place.run(), place.run(STRICT="1"), place.count] == [0, 0, 2]


def test_what_passed_under_strict_is_remembered(place: Place) -> None:
    assert [place.run(STRICT="1"), place.run(), place.count] == [0, 0, 1]


def test_a_failure_under_strict_is_remembered_too(place: Place) -> None:
    assert [place.run(), place.run(1, STRICT="1"), place.run(), place.count] == [0, 1, 0, 3]


def test_without_git_it_always_runs(tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    assert [place.run(), place.run(), place.count] == [0, 0, 2]
