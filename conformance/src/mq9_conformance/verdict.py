"""Verdicts: how a run of a scenario counts, what is excused, and when the whole run is green."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from .scenario import Scenario
from .spec import Spec
from .values import ScenarioError, canonical_json
from .vectors import VectorRun

RAW = "raw"
"""The column of the requests that the runner makes from the spec itself."""


class Status(str, Enum):
    """How one run of one scenario ended."""

    PASSED = "passed"
    FAILED = "failed"
    KNOWN = "known failure"
    UNEXPECTED = "unexpected pass"
    ERROR = "error"

    @property
    def red(self) -> bool:
        """Says whether this makes the whole run red."""
        return self in {Status.FAILED, Status.UNEXPECTED, Status.ERROR}


@dataclass
class Result:
    """One run of one scenario against one implementation."""

    scenario: Scenario
    column: str
    status: Status
    seconds: float
    reason: str = ""
    line: int | None = None
    timeline: list[str] = field(default_factory=list)
    transcript: dict[str, Any] = field(default_factory=dict)
    excuse: str | None = None

    @property
    def place(self) -> str:
        """`file:line` of the step that failed, of the scenario otherwise."""
        return f"{self.scenario.file.name}:{self.line or self.scenario.line}"


@dataclass(frozen=True)
class KnownFailure:
    """A rule that excuses failures of scenarios, and only failures."""

    pattern: str
    sdk: str
    why: str

    def matches(self, scenario: str, column: str) -> bool:
        """Says whether this rule is about a scenario in a column."""
        return fnmatch.fnmatchcase(scenario, self.pattern) and self.sdk in {"*", column}


@dataclass
class Column:
    """An implementation under test: an SDK or the raw requests; `not_run` says why it could not run."""

    name: str
    version: str = ""
    not_run: str | None = None
    vectors: list[VectorRun] = field(default_factory=list)
    """Layer L1, if the SDK's own tests have left their JUnit file."""


@dataclass
class RunReport:
    """Everything that a run found out."""

    spec: Spec
    scenarios: list[Scenario]
    columns: list[Column]
    results: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    filtered: bool = False
    strict: bool = False

    def count(self, status: Status) -> int:
        """How many runs ended like this."""
        return sum(result.status is status for result in self.results)

    @property
    def green(self) -> bool:
        """Says whether the run counts as passed."""
        return not self.problems and not any(result.status.red for result in self.results)

    def conclude(self, known: list[KnownFailure], all_scenarios: list[Scenario]) -> None:
        """Adds what is wrong with the run as a whole."""
        if not self.results:
            self.problems.append("nothing ran")
        columns = {column.name for column in self.columns}
        for rule in known:
            if not any(rule.matches(s.name, c) for s in all_scenarios for c in columns | {rule.sdk}):
                self.problems.append(f"known failure {rule.pattern!r} matches no scenario")
        self.problems += differences(self.results)
        for column in self.columns:
            if column.not_run and self.strict:
                self.problems.append(f"{column.name} was not run: {column.not_run}")
        if not self.filtered:
            ran = {result.scenario.base for result in self.results}
            scenarios = [scenario for scenario in all_scenarios if scenario.name in ran]
            unchecked = uncovered(self.spec, scenarios)
            if unchecked:
                self.problems.append(
                    f"no check ran of {len(unchecked)} MUST requirements: {', '.join(unchecked)}"
                )


def differences(results: Iterable[Result]) -> list[str]:
    """The second witness: SDKs that passed a scenario must have sent the same requests.

    A difference shows both sides: what most SDKs sent (`-`) and what the others did (`+`). A scenario with
    `lockstep: false` is left out: what it sends depends on time.
    """
    groups: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        if (
            result.transcript
            and result.status is Status.PASSED
            and result.scenario.data.get("lockstep", True)
        ):
            text = canonical_json(result.transcript)
            groups.setdefault(result.scenario.name, {}).setdefault(text, []).append(result)
    found = []
    for name, texts in sorted(groups.items()):
        most, *others = sorted(texts.values(), key=len, reverse=True)
        for other in others:
            found.append(f"{name}: SDKs sent different requests:\n" + "\n".join(_both_sides(most, other)))
    return found


def _both_sides(left: list[Result], right: list[Result]) -> list[str]:
    """What two groups of SDKs sent, as a unified difference."""
    difference = difflib.unified_diff(
        _sent(left[0]),
        _sent(right[0]),
        ", ".join(result.column for result in left),
        ", ".join(result.column for result in right),
        lineterm="",
        n=2,
    )
    return [f"    {line}" for line in difference]


def _sent(result: Result) -> list[str]:
    """What an SDK sent, a line a request."""
    return [
        f"{client}: {canonical_json(request)}"
        for client, requests in result.transcript.items()
        for request in requests
    ]


def judge(
    status: Status, scenario: str, column: str, known: Iterable[KnownFailure]
) -> tuple[Status, str | None]:
    """Applies the rules of known failures: errors are never excused, a pass in spite of a rule is red."""
    for rule in known:
        if rule.matches(scenario, column):
            if status is Status.FAILED:
                return Status.KNOWN, rule.why
            if status is Status.PASSED:
                return (
                    Status.UNEXPECTED,
                    f"known failure ({rule.why}) passes now: remove the rule {rule.pattern!r}",
                )
    return status, None


def load_known(path: Path) -> list[KnownFailure]:
    """Reads the file of known failures: a list of `{scenario, sdk, why}`. No file: none."""
    if not path.exists():
        return []
    data = yaml.safe_load(path.read_text("utf-8")) or []
    rules = []
    for number, item in enumerate(data, 1):
        if not isinstance(item, Mapping) or not item.keys() == {"scenario", "sdk", "why"} or not item["why"]:
            raise ScenarioError(f"{path}: item {number}: `scenario`, `sdk` and `why` were expected")
        rules.append(KnownFailure(str(item["scenario"]), str(item["sdk"]), str(item["why"])))
    return rules


@dataclass(frozen=True)
class Coverage:
    """A requirement and what checks it."""

    requirement: str
    level: str
    by: str
    text: str
    scenarios: tuple[str, ...]
    vectors: tuple[str, ...]

    @property
    def covered(self) -> bool:
        """Says whether anything checks it."""
        return bool(self.scenarios or self.vectors)


def coverage(spec: Spec, scenarios: Iterable[Scenario]) -> list[Coverage]:
    """Every requirement with its checks, in the order of the ids."""
    by_requirement: dict[str, list[str]] = {}
    for scenario in scenarios:
        for name in scenario.covers:
            by_requirement.setdefault(name, []).append(scenario.name)
    by_vector: dict[str, list[str]] = {}
    for operation in spec.operations.values():
        for vector in operation.vectors:
            for name in vector.get("covers") or []:
                by_vector.setdefault(name, []).append(f"{operation.name}/{vector['id']}")
    return [
        Coverage(
            r.id,
            r.level,
            r.by,
            r.text,
            tuple(by_requirement.get(r.id, ())),
            tuple(by_vector.get(r.id, ())) if r.by == "sdk" else (),
        )
        for r in sorted(spec.requirements.values(), key=lambda r: r.id)
    ]


def uncovered(spec: Spec, scenarios: Iterable[Scenario]) -> list[str]:
    """The MUSTs that nothing checks."""
    return [
        item.requirement for item in coverage(spec, scenarios) if item.level == "MUST" and not item.covered
    ]
