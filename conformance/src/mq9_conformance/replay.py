"""Plays a saved failure again, from the file alone, and prints the exact lines to do it by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from .adapter import find_adapters
from .lint import lint_scenario
from .runner import RunOptions, Task, Worker
from .scenario import located, scenario_of
from .spec import Spec
from .values import ScenarioError
from .verdict import RAW, Result, Status


def replay(path: Path, spec: Spec, root: Path, *, lines_only: bool) -> int:
    """Prints the lines of a saved failure; unless `lines_only`, plays it again and shows the new ones."""
    try:
        data = json.loads(path.read_text("utf-8"))
        name, sdk, source = data["scenario"], data["sdk"], data["source"]
    except (OSError, ValueError, KeyError) as error:
        raise ScenarioError(f"{path}: no saved failure: {error}") from error
    console = Console(highlight=False, soft_wrap=True)
    console.print(escape(f"{name} ({sdk}) failed at {data['place']}: {data['reason']}"))
    _print_lines(console, data["timeline"], sdk)
    if lines_only:
        return 0
    scenario = scenario_of(path, located(source))
    problems = lint_scenario(scenario, spec)
    if problems:
        raise ScenarioError("\n".join(problems))
    adapter = None
    if sdk != RAW:
        adapter = next((config for config in find_adapters(root) if config.name == sdk), None)
        if adapter is None:
            raise ScenarioError(f"there is no adapter of the {sdk} SDK below {root}")
        missing = adapter.missing()
        if missing:
            raise ScenarioError(f"{sdk} cannot run here: {missing}")
    result = asyncio.run(_play(RunOptions(spec, [], []), Task(scenario, adapter)))
    console.rule("again")
    if result.status is Status.PASSED:
        console.print(escape(f"passed this time, in {result.seconds:.2f} s"), style="green")
        return 0
    for line in result.timeline:
        console.print(escape(line), style="dim")
    console.print(escape(f"{result.status.value}: {result.reason}"), style="bold red")
    return 1


async def _play(options: RunOptions, task: Task) -> Result:
    worker = Worker(options)
    try:
        return await worker.run(task)
    finally:
        await worker.close()


def _print_lines(console: Console, timeline: list[str], sdk: str) -> None:
    """What went to the adapter, line by line, ready to be piped into it; then the whole timeline."""
    sent = [line.partition(" adapter  > ")[2] for line in timeline if " adapter  > " in line]
    if sent:
        console.print(
            f"\nlines for the adapter of {sdk} (its ports are those of the old run; see `connect`):"
        )
        for line in sent:
            console.print(escape(line))
    console.print("\ntimeline of the old run:")
    for line in timeline:
        console.print(escape(line), style="dim")
