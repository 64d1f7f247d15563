"""Projects are compiled again when something changed, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest
from codegen.tests.projects import build


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("STRICT", raising=False)
    (tmp_path / "project" / "generated").mkdir(parents=True)
    (tmp_path / "project" / "generated" / "a.txt").write_text("a")
    return tmp_path / "project"


def is_needed(folder: Path, tool: str = "echo 1") -> bool:
    with build(folder, tool) as needed:
        return needed


def test_what_has_not_changed_is_not_compiled_again(folder: Path) -> None:
    assert [is_needed(folder), is_needed(folder)] == [True, False]


def test_a_file_a_name_and_a_tool_that_changed_count(folder: Path) -> None:
    assert is_needed(folder)
    (folder / "generated" / "a.txt").write_text("b")
    assert [is_needed(folder), is_needed(folder)] == [True, False]
    (folder / "generated" / "a.txt").rename(folder / "b.txt")
    assert [is_needed(folder), is_needed(folder)] == [True, False]
    assert [is_needed(folder, "echo 2"), is_needed(folder, "echo 2")] == [True, False]


def test_what_compilers_make_does_not_count(folder: Path) -> None:
    assert is_needed(folder)
    (folder / "dist").mkdir()
    (folder / "dist" / "a.js").write_text("made")
    assert not is_needed(folder)


def test_what_failed_is_done_again(folder: Path) -> None:
    assert is_needed(folder)
    (folder / "c.txt").write_text("wrong")
    with pytest.raises(ValueError, match="wrong"), build(folder, "echo 1") as needed:
        raise ValueError("wrong")
    assert needed
    assert is_needed(folder)


def test_under_strict_it_is_always_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_needed(folder)
    monkeypatch.setenv("STRICT", "1")
    assert is_needed(folder)
