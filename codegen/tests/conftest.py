from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mq9_codegen.commands import read_spec
from mq9_codegen.model import Spec
from mq9_codegen.problems import SpecError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOY = HERE / "toyspec"


@pytest.fixture(scope="session")
def toy() -> Spec:
    return read_spec(TOY)


@pytest.fixture(scope="session")
def real() -> Spec:
    return read_spec(ROOT / "spec")


@pytest.fixture
def toy_copy(tmp_path: Path) -> Path:
    """A copy of the toy specification that a test may change."""
    folder = tmp_path / "spec"
    shutil.copytree(TOY, folder, symlinks=False)
    return folder


@pytest.fixture
def mistakes(toy_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Changes one text of one file of the toy specification and gives the messages that come of it."""
    monkeypatch.chdir(toy_copy)

    def change(file: str, old: str, new: str, strict: bool = False) -> list[str]:
        path = toy_copy / file
        content = path.read_text("utf-8")
        assert content.count(old) >= 1, f"{old!r} is not in {file}"
        path.write_text(content.replace(old, new, 1), "utf-8")
        try:
            read_spec(Path(), strict=strict)
        except SpecError as error:
            return [str(problem) for problem in error.problems]
        finally:
            path.write_text(content, "utf-8")
        return []

    return change
