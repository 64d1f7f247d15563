"""The command line `mq9-conformance`. Exit codes: 0 green, 1 red, 2 a mistake in arguments or files."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from .adapter import find_adapters
from .brokers import Broker
from .lint import lint
from .reports import TerminalReport, write_reports
from .results import HarnessError
from .runner import RunOptions, run
from .scenario import Scenario, load_folder
from .spec import Spec, find_spec, load_spec
from .values import ScenarioError
from .verdict import RAW, Status, coverage, load_known

_EPILOG = (
    "exit code: 0 green; 1 red (a failure, nothing ran, an uncovered MUST, ...); "
    "2 a mistake in arguments or files"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.action(options))
    except (ScenarioError, HarnessError) as error:
        for line in str(error).splitlines():
            print(f"mq9-conformance: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mq9-conformance",
        description="Replays the scenarios of mq9 against SDKs and brokers.",
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary, epilog=_EPILOG)
        sub.add_argument(
            "--spec", metavar="DIR", help="folder of the spec (default: MQ9_SPEC, or found beside the suite)"
        )
        sub.add_argument(
            "--scenarios", metavar="DIR", help="folder of the scenarios (default: conformance/scenarios)"
        )
        return sub

    runs = command("run", "Plays scenarios and prints the matrix.")
    _add_filter(runs)
    runs.add_argument(
        "--sdk", metavar="NAMES", help=f"columns, with commas between: SDKs, or {RAW} (default: all)"
    )
    runs.add_argument(
        "--mode",
        choices=["sdk", "broker"],
        default="sdk",
        help="sdk: every SDK on the reference broker (default); broker: raw requests, against any broker",
    )
    runs.add_argument("--url", metavar="URL", help="a running broker, for --mode broker: nats://HOST:PORT")
    runs.add_argument("--http", metavar="URL", help="its HTTP port, if it has a test clock: http://HOST:PORT")
    runs.add_argument("--strict", action="store_true", help="an SDK that cannot run here makes the run red")
    runs.add_argument(
        "--workers",
        type=int,
        default=3 * (os.cpu_count() or 1),
        metavar="N",
        help="scenarios at once (default: %(default)s)",
    )
    runs.add_argument(
        "--known", metavar="FILE", help="known failures (default: conformance/known-failing.yaml)"
    )
    runs.add_argument("--reports", metavar="DIR", help="where reports go (default: reports/conformance)")
    runs.add_argument("--fail-fast", action="store_true", help="stop after the first red result")
    runs.add_argument("--replay", action="store_true", help="print the exact lines of every failure")
    runs.add_argument("--verbose", "-v", action="store_true", help="a line for each run")
    runs.set_defaults(action=_run)

    lists = command("list", "Lists the scenarios.")
    _add_filter(lists)
    lists.set_defaults(action=_list)

    lints = command("lint", "Checks the scenario files without running anything.")
    lints.set_defaults(action=_lint)

    covers = command("coverage", "Shows every requirement and what checks it; an unchecked MUST is red.")
    covers.add_argument("--missing", action="store_true", help="only those without a check")
    covers.set_defaults(action=_coverage)

    mutants = command(
        "mutants", "Proves that broken adapters and brokers are caught; prints the kill matrix."
    )
    mutants.add_argument(
        "--filter",
        metavar="TEXT",
        default="",
        help="only mutants whose name or requirement contains this, or of this SDK or kind",
    )
    mutants.add_argument(
        "--workers",
        type=int,
        default=3 * (os.cpu_count() or 1),
        metavar="N",
        help="mutants at once (default: %(default)s)",
    )
    mutants.add_argument(
        "--reports", metavar="DIR", help="where the kill matrix goes (default: reports/conformance)"
    )
    mutants.add_argument(
        "--strict", action="store_true", help="an SDK whose adapters cannot run here makes the run red"
    )
    mutants.add_argument("--verbose", "-v", action="store_true", help="say what killed each mutant")
    mutants.set_defaults(action=_mutants)

    replays = command("replay", "Plays a saved failure again and prints its exact lines.")
    replays.add_argument("file", metavar="FILE", help="a file of reports/conformance/failures")
    replays.add_argument("--lines", action="store_true", help="only print the lines, play nothing")
    replays.set_defaults(action=_replay)
    return parser


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--filter",
        metavar="TEXT",
        action="append",
        default=[],
        help="only scenarios with this in name or file, or this requirement id; `=name` exactly; repeatable",
    )


def select(scenarios: list[Scenario], filters: list[str]) -> list[Scenario]:
    """The scenarios that any of the filters matches; all without a filter."""

    def wanted(scenario: Scenario) -> bool:
        return any(
            scenario.name == text[1:]
            if text.startswith("=")
            else text in scenario.name or text in scenario.covers or text in scenario.file.name
            for text in filters
        )

    return [scenario for scenario in scenarios if not filters or wanted(scenario)]


def _load(options: argparse.Namespace) -> tuple[Spec, list[Scenario], Path]:
    folder = find_spec(options.spec)
    root = folder.parent
    spec = load_spec(folder)
    scenarios = load_folder(
        Path(options.scenarios) if options.scenarios else root / "conformance" / "scenarios"
    )
    return spec, scenarios, root


def _checked(scenarios: list[Scenario], spec: Spec) -> None:
    problems = lint(scenarios, spec)
    if problems:
        raise ScenarioError("\n".join(problems))


def _run(options: argparse.Namespace) -> int:
    spec, scenarios, root = _load(options)
    chosen = select(scenarios, options.filter)
    _checked(chosen, spec)
    external = None
    adapters = find_adapters(root)
    names = options.sdk.split(",") if options.sdk else None
    if options.mode == "broker":
        if not options.url:
            raise ScenarioError("--mode broker needs --url nats://HOST:PORT")
        external = Broker(
            _address(options.url, 4222), http=_address(options.http, 9090) if options.http else None
        )
        adapters, names = [], None
    elif options.url:
        raise ScenarioError("--url belongs to --mode broker")
    if names is not None:
        unknown = set(names) - {RAW} - {adapter.name for adapter in adapters}
        if unknown:
            known = ", ".join([RAW, *(adapter.name for adapter in adapters)])
            raise ScenarioError(f"--sdk: {', '.join(sorted(unknown))} is none of {known}")
        adapters = [adapter for adapter in adapters if adapter.name in names]
    terminal = TerminalReport(verbose=options.verbose)
    run_options = RunOptions(
        spec=spec,
        scenarios=chosen,
        adapters=adapters,
        known=load_known(
            Path(options.known) if options.known else root / "conformance" / "known-failing.yaml"
        ),
        # Scenarios that advance one clock would disturb each other.
        workers=1 if external is not None and external.has_clock else options.workers,
        external=external,
        raw=names is None or RAW in names,
        stop_at_failure=options.fail_fast,
        progress=terminal.progress,
    )
    partial = bool(options.filter or names or external)
    report = asyncio.run(run(run_options, scenarios, filtered=partial, strict=options.strict))
    files = write_reports(
        report, Path(options.reports) if options.reports else root / "reports" / "conformance"
    )
    red = [result for result in report.results if result.status in {Status.FAILED, Status.ERROR}]
    for result in red if options.replay else red[:3]:
        terminal.failure(result, files[f"{result.scenario.name} [{result.column}]"])
    terminal.finish(report)
    return 0 if report.green else 1


def _address(url: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    if not parts.hostname:
        raise ScenarioError(f"{url!r} is no URL: scheme://HOST:PORT was expected")
    return parts.hostname, parts.port or default_port


def _list(options: argparse.Namespace) -> int:
    _, scenarios, _ = _load(options)
    chosen = select(scenarios, options.filter)
    for scenario in chosen:
        where = (
            "sdk"
            if scenario.needs_sdk and scenario.not_raw()
            else "sdk, raw"
            if scenario.needs_sdk
            else "raw"
        )
        print(f"{scenario.name:<70} {scenario.layer}  {where:<9} {', '.join(scenario.covers)}")
    print(f"{len(chosen)} scenarios")
    return 0 if chosen else 1


def _lint(options: argparse.Namespace) -> int:
    spec, scenarios, _ = _load(options)
    problems = lint(scenarios, spec)
    for problem in problems:
        print(problem)
    print(f"{len(scenarios)} scenarios, {len(problems)} mistakes")
    return 1 if problems else 0


def _coverage(options: argparse.Namespace) -> int:
    spec, scenarios, _ = _load(options)
    missing = 0
    for item in coverage(spec, scenarios):
        lacking = item.level == "MUST" and not item.covered
        missing += lacking
        if options.missing and item.covered:
            continue
        checks = ", ".join([*item.scenarios, *(f"vector {name}" for name in item.vectors)]) or "NOTHING"
        print(f"{item.requirement:<15} {item.level:<6} {item.by:<6} {checks}")
    print(f"{len(spec.requirements)} requirements, {missing} MUST without a check")
    return 1 if missing else 0


def _mutants(options: argparse.Namespace) -> int:
    from .mutants.run import run_mutants  # noqa: PLC0415 (only this command needs them)

    spec, scenarios, root = _load(options)
    _checked(scenarios, spec)
    reports = Path(options.reports) if options.reports else root / "reports" / "conformance"
    return run_mutants(
        spec,
        scenarios,
        root,
        reports,
        text=options.filter,
        workers=options.workers,
        verbose=options.verbose,
        strict=options.strict,
    )


def _replay(options: argparse.Namespace) -> int:
    from .replay import replay  # noqa: PLC0415 (only this command needs it)

    spec, _, root = _load(options)
    return replay(Path(options.file), spec, root, lines_only=options.lines)


if __name__ == "__main__":
    sys.exit(main())
