"""Rules that a JSON Schema can't state: references, bounds, naming, coverage."""

from __future__ import annotations

from mq9_codegen.load import Sources
from mq9_codegen.problems import Problem


def check_policy(sources: Sources, problems: list[Problem]) -> None:
    """Finds references to nothing, defaults out of bounds, duplicates and wrong names."""


def check_requirements(sources: Sources, problems: list[Problem]) -> dict[str, tuple[str, ...]]:
    """Collects what covers each requirement; a MUST that nothing covers and unknown ids are problems."""
    return {}
