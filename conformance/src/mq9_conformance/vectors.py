"""Layer L1: wire vectors run inside each SDK's own tests; their JUnit files are read here."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from .spec import Spec
from .values import ScenarioError

_BAD = ("failure", "error", "skipped")


@dataclass(frozen=True)
class VectorRun:
    """How the vectors of one operation did in one SDK."""

    operation: str
    passed: int
    total: int
    missing: tuple[str, ...]


def read_vectors(path: Path, spec: Spec) -> list[VectorRun]:
    """Reads a JUnit file: a test case is a vector's if `operation/vector-id` stands in its name or class.

    A vector without a test case counts as not passed.
    """
    try:
        root = ET.parse(path).getroot()  # noqa: S314 (a file that our own tests wrote)
    except (OSError, ET.ParseError) as error:
        raise ScenarioError(f"{path}: no JUnit file: {error}") from error
    names: dict[str, bool] = {}
    for case in root.iter("testcase"):
        text = f"{case.get('classname', '')} {case.get('name', '')}"
        names[text] = all(case.find(tag) is None for tag in _BAD)
    runs = []
    for operation in spec.operations.values():
        found = {
            str(vector["id"]): _verdict(names, operation.name, str(vector["id"]))
            for vector in operation.vectors
        }
        missing = tuple(name for name, verdict in found.items() if verdict is None)
        runs.append(VectorRun(operation.name, sum(map(bool, found.values())), len(found), missing))
    return runs


def _verdict(names: dict[str, bool], operation: str, vector: str) -> bool | None:
    wanted = f"{operation}/{vector}"
    found = [passed for text, passed in names.items() if _contains(text, wanted)]
    return all(found) if found else None


def _contains(text: str, wanted: str) -> bool:
    at = text.find(wanted)
    return at >= 0 and not text[at + len(wanted) :][:1].replace("-", "a").isalnum()
