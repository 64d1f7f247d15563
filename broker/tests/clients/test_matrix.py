"""The table that the matrix of clients writes; the matrix itself is a command."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    path = Path(__file__).with_name("matrix.py")
    spec = importlib.util.spec_from_file_location("clients_matrix", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["clients_matrix"] = module
    spec.loader.exec_module(module)
    return module


def test_a_table_says_what_happened_and_why(matrix: ModuleType) -> None:
    results = {
        "go": {"none": "ok", "jwt": "FAILED: no: answer"},
        "csharp": {"none": "ok", "jwt": "-: no library"},
        "java": {"": "NOT RUN: no javac"},
    }
    assert matrix.table(results, ["none", "jwt"]).splitlines() == [
        "| | go | csharp | java |",
        "|---|---|---|---|",
        "| none | yes | yes | NOT RUN |",
        "| jwt | FAILED | no | NOT RUN |",
        "",
        "java, all: no javac.",
        "go, jwt: no: answer.",
        "csharp, jwt: no library.",
    ]


def test_a_table_replaces_the_one_before(matrix: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- clients: begin -->\nold\n<!-- clients: end -->\nb\n", "utf-8")
    for text in ("new", "newer\n"):
        matrix.write(text, page)
    assert page.read_text("utf-8") == "a\n<!-- clients: begin -->\nnewer\n<!-- clients: end -->\nb\n"
