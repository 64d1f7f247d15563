"""What every report says, computed once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ..scenario import Scenario
from ..verdict import Coverage, Result, RunReport, Status, coverage

MARKS = {
    Status.PASSED: "pass",
    Status.FAILED: "FAIL",
    Status.KNOWN: "known",
    Status.UNEXPECTED: "UNEXPECTED",
    Status.ERROR: "ERROR",
}


@dataclass(frozen=True)
class AreaCell:
    """The runs of one area in one column."""

    passed: int
    total: int
    red: int
    seconds: float


def by_area(report: RunReport) -> dict[str, dict[str, AreaCell]]:
    """Areas (what stands before the first `/`), each with its columns."""
    grouped: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in report.results:
        grouped[result.scenario.name.split("/", maxsplit=1)[0]][result.column].append(result)
    return {
        area: {
            column: AreaCell(
                sum(r.status is Status.PASSED for r in results),
                len(results),
                sum(r.status.red for r in results),
                sum(r.seconds for r in results),
            )
            for column, results in columns.items()
        }
        for area, columns in sorted(grouped.items())
    }


def operations_of(scenario: Scenario, report: RunReport) -> set[str]:
    """The operations that a scenario calls."""
    methods = report.spec.by_method
    found = {
        methods[step.action].name for step in scenario.all_steps() if step.action in methods and step.target
    }
    actions = {step.action for step in scenario.all_steps()}
    if actions & {"consume", "iterate"}:
        found |= {"consume"}
    if "agent_keep_alive" in actions:
        found |= {"agent_keep_alive"}
    return found


def parity(report: RunReport) -> dict[str, dict[str, str]]:
    """The matrix operation x column and layer, made of what really ran: passed/total."""
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for result in report.results:
        for operation in operations_of(result.scenario, report):
            cell = counts[operation][f"{result.column} {result.scenario.layer}"]
            cell[0] += result.status is Status.PASSED
            cell[1] += 1
    for column in report.columns:
        for run in column.vectors:
            counts[run.operation][f"{column.name} L1"] = [run.passed, run.total]
    return {
        operation: {column: f"{passed}/{total}" for column, (passed, total) in sorted(columns.items())}
        for operation, columns in sorted(counts.items())
    }


def covered(report: RunReport) -> list[Coverage]:
    """The requirements with the checks that ran."""
    ran = {result.scenario.base for result in report.results}
    return coverage(report.spec, [scenario for scenario in report.scenarios if scenario.name in ran])


def closing_line(report: RunReport) -> str:
    """One line that says it all."""
    parts = [f"{report.count(Status.PASSED)} passed"]
    for status in (Status.FAILED, Status.ERROR, Status.UNEXPECTED, Status.KNOWN):
        if report.count(status):
            parts.append(f"{report.count(status)} {status.value}")
    not_run = [column.name for column in report.columns if column.not_run]
    if not_run:
        parts.append(f"NOT RUN: {', '.join(not_run)}")
    if report.problems:
        parts.append(f"{len(report.problems)} problem{'s' if len(report.problems) > 1 else ''}")
    names = len({result.scenario.base for result in report.results})
    return f"conformance: {', '.join(parts)} ({names} scenarios, {report.seconds:.1f} s)"


def as_data(report: RunReport) -> dict[str, Any]:
    """The whole report as JSON values."""
    return {
        "green": report.green,
        "summary": closing_line(report),
        "spec": report.spec.version,
        "seconds": round(report.seconds, 3),
        "columns": [
            {
                "name": c.name,
                "version": c.version,
                "not_run": c.not_run,
                "vectors": [
                    {
                        "operation": v.operation,
                        "passed": v.passed,
                        "total": v.total,
                        "missing": list(v.missing),
                    }
                    for v in c.vectors
                ],
            }
            for c in report.columns
        ],
        "problems": report.problems,
        "notes": report.notes,
        "results": [
            {
                "scenario": r.scenario.name,
                "column": r.column,
                "status": r.status.value,
                "layer": r.scenario.layer,
                "seconds": round(r.seconds, 3),
                "covers": list(r.scenario.covers),
                "place": r.place,
                "reason": r.reason,
                "excuse": r.excuse,
                "timeline": r.timeline,
            }
            for r in report.results
        ],
        "requirements": [
            {
                "id": c.requirement,
                "level": c.level,
                "by": c.by,
                "text": c.text,
                "scenarios": list(c.scenarios),
                "vectors": list(c.vectors),
            }
            for c in covered(report)
        ],
        "parity": parity(report),
    }
