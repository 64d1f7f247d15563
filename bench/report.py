"""Turns the figures into Markdown tables, files of results, and the marked sections of README.md."""

from __future__ import annotations

import json
from typing import Any

from harness import BENCH, BenchmarkError, Series

README = BENCH / "README.md"
RESULTS = BENCH / "results"
_COMPARES = ("compare", "compare_file")
NAMES = {"jetstream": "JetStream", "mq9": "mq9"}


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|" + "---|" * len(cells)]


def _machine(facts: dict[str, str]) -> str:
    return "Machine: " + "; ".join(f"{name} {value}" for name, value in facts.items()) + "."


def _compare(results: dict[str, Any]) -> str:
    lines = [
        f"{results['rounds']} interleaved rounds of {results['messages']:,} messages, the quietest of "
        f"{results['measured']}; "
        "medians (least to greatest).",
        "",
        *_head(
            "",
            "system",
            "messages/s",
            "server CPU, µs a message",
            "p50, ms",
            "p99, ms",
            "server, cores",
            "generator, cores",
        ),
    ]
    for comparison in results["comparisons"].values():
        for system, figures in comparison["systems"].items():
            series = {name: Series(values) for name, values in figures.items()}
            lines.append(
                _row(
                    comparison["title"],
                    NAMES[system],
                    series["per_second"].text(),
                    series["server_us"].text(digits=2),
                    series["p50_ms"].text(digits=2),
                    series["p99_ms"].text(digits=2),
                    series["server_share"].text(digits=2),
                    series["generator_share"].text(digits=2),
                )
            )
    lines += ["", *_head("", "mq9 : JetStream, messages/s", "target", "", "CPU a message, JetStream : mq9")]
    for comparison in results["comparisons"].values():
        met = "met" if comparison["met"] else "MISSED"
        ratio, target, cpu = comparison["ratio"], comparison["target"], comparison["cpu_ratio"]
        lines.append(_row(comparison["title"], f"{ratio:.2f}", f"{target:.1f}", met, f"{cpu:.2f}"))
    others, stolen = (
        Series(
            [
                share
                for comparison in results["comparisons"].values()
                for figures in comparison["systems"].values()
                for share in figures[name]
            ]
        ).text(digits=2)
        for name in ("others_share", "stolen_share")
    )
    lines += [
        "",
        f"Other processes of the machine took {others} cores meanwhile, its hypervisor took {stolen} away.",
    ]
    resident = ", ".join(
        f"{NAMES[system]} {value:.0f} MB" for system, value in results["resident_mb"].items()
    )
    return "\n".join([*lines, "", f"Resident memory after the last round: {resident}."])


def _flat(results: dict[str, Any]) -> str:
    columns = ("p10, ms", "p50, ms", "p99, ms", "first, ms", "base, ms", "times base")
    lines = _head(
        "mailbox", "FETCH", *(f"leased: {name}" for name in columns), *(f"plain: {name}" for name in columns)
    )
    for row in results["rows"]:
        cells: list[object] = [row["title"], row["batch"]]
        for kind in ("leased", "plain"):
            figures = row[kind]
            names = ("cycle_p10_ms", "cycle_p50_ms", "cycle_p99_ms", "cycle_first_ms", "base_p10_ms")
            cells += [*(f"{figures[name]:.3f}" for name in names), f"{figures['times_base']:.2f}"]
        lines.append(_row(*cells))
    explanation = (
        "FETCH + ACK on one connection. Base: the p10 of a mailbox with nothing in the way, in a broker "
        "beside, in turns with the other. Medians of the turns."
    )
    return "\n".join([explanation, "", *lines])


def render(results: dict[str, Any]) -> dict[str, str]:
    """The tables, by the name of the marker they stand between."""
    tables = {"machine": _machine(results["machine"])}
    for name in _COMPARES:
        if name in results:
            tables[name] = _compare(results[name])
    if "flat" in results:
        tables["flat"] = _flat(results["flat"])
    return tables


def missed(results: dict[str, Any]) -> list[str]:
    """The figures that miss their target."""
    lines = []
    for name in _COMPARES:
        for comparison in results.get(name, {}).get("comparisons", {}).values():
            if not comparison["met"]:
                lines.append(
                    f"{name}: {comparison['title']}: {comparison['ratio']:.2f} "
                    f"instead of {comparison['target']:.1f}"
                )
    flat = results.get("flat", {"rows": []})
    for row in flat["rows"]:
        for kind in ("leased", "plain"):
            times = row[kind]["times_base"]
            if times > flat["limit"]:
                lines.append(f"FETCH {row['batch']}, {kind}, {row['title']}: {times:.1f} times the base")
    return lines


def write(results: dict[str, Any], tables: dict[str, str]) -> None:
    """Write results/<part>.json and replace what stands between the markers in README.md."""
    RESULTS.mkdir(exist_ok=True)
    text = README.read_text()
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise BenchmarkError(f"{README} has no markers {begin.strip()} and {end}")
        text = before + begin + table + "\n" + end + after
        if name in results:
            part = {"machine": results["machine"], name: results[name]}
            (RESULTS / f"{name}.json").write_text(json.dumps(part, indent=1) + "\n")
    README.write_text(text)
