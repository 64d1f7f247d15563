"""The reports that are files, all below one folder."""

from __future__ import annotations

import html
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jinja2

from ..verdict import Result, RunReport, Status
from .summary import MARKS, as_data, by_area, closing_line, covered, parity

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("mq9_conformance.reports", "templates"),
    autoescape=jinja2.select_autoescape(["html", "html.j2"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def write_reports(report: RunReport, folder: Path) -> dict[str, str]:
    """Writes every report; gives the replay file of each failure by `scenario [column]`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(
        json.dumps(as_data(report), indent=1, ensure_ascii=False) + "\n", "utf-8", "backslashreplace"
    )
    _junit(report).write(folder / "junit.xml", encoding="utf-8", xml_declaration=True)
    for name in ("report.md", "report.html"):
        text = _TEMPLATES.get_template(f"{name}.j2").render(**_view(report))
        (folder / name).write_text(text, "utf-8", "backslashreplace")
    _transcripts(report, folder / "transcripts")
    return _failures(report, folder / "failures")


def _view(report: RunReport) -> dict[str, Any]:
    columns = [column.name for column in report.columns if not column.not_run]
    results: dict[str, dict[str, Result]] = {}
    for result in report.results:
        results.setdefault(result.scenario.name, {})[result.column] = result
    parity_rows = parity(report)
    return {
        "report": report,
        "closing": closing_line(report),
        "columns": columns,
        "areas": by_area(report),
        "results": results,
        "marks": MARKS,
        "passed": Status.PASSED,
        "coverage": covered(report),
        "parity": parity_rows,
        "parity_columns": sorted({name for row in parity_rows.values() for name in row}),
        "escape": html.escape,
    }


def _junit(report: RunReport) -> ET.ElementTree[ET.Element]:
    root = ET.Element("testsuites", name="mq9-conformance", time=f"{report.seconds:.3f}")
    for column in report.columns:
        results = [result for result in report.results if result.column == column.name]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=f"conformance {column.name}",
            tests=str(len(results) or (1 if column.not_run else 0)),
            failures=str(sum(r.status in {Status.FAILED, Status.UNEXPECTED} for r in results)),
            errors=str(sum(r.status is Status.ERROR for r in results)),
            skipped=str(sum(r.status is Status.KNOWN for r in results) + (1 if column.not_run else 0)),
            time=f"{sum(r.seconds for r in results):.3f}",
        )
        if column.not_run:
            case = ET.SubElement(suite, "testcase", classname="toolchain", name=column.name, time="0")
            ET.SubElement(case, "skipped", message=column.not_run)
        for result in results:
            _case(suite, result)
    if report.problems:
        count = str(len(report.problems))
        suite = ET.SubElement(
            root, "testsuite", name="conformance run", tests=count, failures=count, errors="0"
        )
        for problem in report.problems:
            case = ET.SubElement(suite, "testcase", classname="run", name=_clean(problem)[:200], time="0")
            ET.SubElement(case, "failure", message=_clean(problem))
    return ET.ElementTree(root)


def _case(suite: ET.Element, result: Result) -> None:
    area, _, name = result.scenario.name.partition("/")
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"{result.column}.{area}",
        name=name,
        file=result.scenario.file.name,
        line=str(result.line or result.scenario.line),
        time=f"{result.seconds:.3f}",
    )
    if result.status is Status.KNOWN:
        ET.SubElement(case, "skipped", message=_clean(f"known failure: {result.excuse}: {result.reason}"))
    elif result.status.red:
        kind = "error" if result.status is Status.ERROR else "failure"
        element = ET.SubElement(case, kind, message=_clean(result.reason)[:1000])
        element.text = _clean("\n".join([result.reason, "", *result.timeline[-100:]]))


def _clean(text: str) -> str:
    return _CONTROL.sub("?", text)


def _transcripts(report: RunReport, folder: Path) -> None:
    """One file a column: what it sent in each scenario, in a form that is equal where behaviour is equal."""
    folder.mkdir(exist_ok=True)
    for column in report.columns:
        content = {
            result.scenario.name: result.transcript
            for result in report.results
            if result.column == column.name and result.transcript
        }
        if content:
            text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
            (folder / f"{column.name}.json").write_text(text + "\n", "utf-8", "backslashreplace")


def _failures(report: RunReport, folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    files = {}
    for result in report.results:
        if not result.status.red:
            continue
        path = folder / f"{result.scenario.name.replace('/', '.')}.{result.column}.json"
        data = {
            "scenario": result.scenario.name,
            "sdk": result.column,
            "place": result.place,
            "reason": result.reason,
            "source": result.scenario.data,
            "timeline": result.timeline,
        }
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8", "backslashreplace")
        files[f"{result.scenario.name} [{result.column}]"] = str(path)
    return files
