"""Proves that the mutants are caught: smoke first, then the scenarios that claim the broken requirement."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from ..adapter import AdapterConfig, find_adapters
from ..fork_server import BROKEN_ADAPTER, ForkServer, available
from ..patience import PATIENCE
from ..results import HarnessError
from ..runner import RunOptions, Task, Worker, build, forking
from ..scenario import Scenario
from ..spec import Spec
from ..values import ScenarioError
from ..verdict import Result, Status
from . import adapters, brokers

SMOKE = "smoke/thin-line"
"""The scenario that every mutant must still pass."""

_LONG_S = 30.0
"""Scenarios that may take longer are compared with their unbroken run from the start, not afterwards."""

_SDK = "python"
"""The SDK that is broken from outside; the adapters of the others have broken pieces of their own."""


@dataclass(frozen=True)
class Subject:
    """A mutant and where it sits."""

    kind: str
    name: str
    requirement: str
    sdk: str = _SDK

    @property
    def place(self) -> str:
        """Where it sits, for people: the broker, or an SDK's adapter."""
        return self.kind if self.kind == "broker" else f"{self.kind} {self.sdk}"


@dataclass
class Outcome:
    """What became of a mutant."""

    subject: Subject
    smoke: bool = False
    killed_by: str = ""
    reason: str = ""
    problem: str = ""
    tried: int = 0
    seconds: float = 0.0

    @property
    def dead(self) -> bool:
        """Says whether all is as it should be: smoke passes, a claiming scenario fails."""
        return self.smoke and bool(self.killed_by) and not self.problem


def run_mutants(
    spec: Spec,
    scenarios: list[Scenario],
    root: Path,
    reports: Path,
    *,
    text: str,
    workers: int,
    verbose: bool,
    strict: bool = False,
) -> int:
    """Runs every mutant, prints the kill matrix and gives the exit code."""
    configs = {config.name: config for config in find_adapters(root)}
    subjects = [Subject("broker", m.name, m.requirement) for m in brokers.MUTANTS]
    subjects += [Subject("adapter", m.name, m.requirement) for m in adapters.MUTANTS]
    subjects += [
        Subject("adapter", m.name, m.requirement, config.name)
        for config in configs.values()
        for m in config.mutants
    ]
    chosen = [s for s in subjects if text in s.name or text in s.requirement or text in s.place.split()]
    if not chosen:
        raise ScenarioError(f"no mutant has {text!r} in its name or requirement")
    unknown = sorted({s.requirement for s in subjects} - spec.requirements.keys())
    if unknown:
        raise ScenarioError(f"mutants break requirements that the spec has not: {', '.join(unknown)}")
    PATIENCE.request_s, PATIENCE.event_s = 6.0, 6.0
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    missing = {name: why for name, config in configs.items() if (why := config.missing())}
    not_run = [subject for subject in chosen if subject.sdk in missing]
    chosen = [subject for subject in chosen if subject.sdk not in missing]
    outcomes = asyncio.run(_all(chosen, spec, scenarios, configs, workers))
    seconds = time.monotonic() - began
    outcomes.sort(key=lambda o: (o.subject.place, o.subject.requirement, o.subject.name))
    survivors = [outcome for outcome in outcomes if not outcome.dead]
    _write(outcomes, reports)
    for outcome in outcomes:
        _print(console, outcome, reason=verbose)
    for sdk in sorted({subject.sdk for subject in not_run}):
        count = sum(subject.sdk == sdk for subject in not_run)
        console.print(f"[yellow]NOT RUN[/] {count} adapters of {sdk}: {missing[sdk]}")
    places = Counter("broker" if o.subject.kind == "broker" else o.subject.sdk for o in outcomes)
    red = bool(survivors or not outcomes or (strict and not_run))
    console.print(
        f"[{'bold red' if red else 'bold green'}]mutants: {len(outcomes) - len(survivors)} of"
        f" {len(outcomes)} caught ({', '.join(f'{n} {place}' for place, n in places.items())};"
        f" {seconds:.1f} s)[/]"
    )
    return int(red)


async def _all(
    subjects: list[Subject],
    spec: Spec,
    scenarios: list[Scenario],
    configs: Mapping[str, AdapterConfig],
    workers: int,
) -> list[Outcome]:
    smoke = next((scenario for scenario in scenarios if scenario.name == SMOKE), None)
    if smoke is None:
        raise ScenarioError(f"there is no scenario {SMOKE}")
    if _SDK not in configs:
        raise ScenarioError(f"there is no adapter of the {_SDK} SDK")
    for name in sorted({subject.sdk for subject in subjects}):
        await build(configs[name])
    by_length = sorted(subjects, key=lambda s: s.requirement == "KEEPALIVE-002")  # takes 20 s: popped first
    outcomes: list[Outcome] = []
    sound = RunOptions(spec, [], [])
    broken = RunOptions(spec, [], [], broker_environment={"MQ9_MUTANT": ""})
    async with forking(sound), forking(broken), _forking_adapter(configs[_SDK]) as python_adapter:
        baseline = Baseline(sound, configs)

        async def work() -> None:
            while by_length:
                subject = by_length.pop()
                options = sound
                if subject.kind == "broker":
                    options = replace(broken, broker_environment={"MQ9_MUTANT": subject.name})
                adapter = _broken_adapter(subject, configs[subject.sdk], python_adapter)
                outcomes.append(await _try(subject, options, scenarios, smoke, adapter, baseline))

        await asyncio.gather(*(work() for _ in range(max(1, min(workers, len(subjects))))))
        await baseline.close()
    return outcomes


@contextlib.asynccontextmanager
async def _forking_adapter(config: AdapterConfig) -> AsyncIterator[AdapterConfig]:
    """How the SDK's adapter is started with a mutant: forked, where that can be done."""
    config = replace(config, command=["{python}", "-m", BROKEN_ADAPTER])
    if not available():
        yield config
        return
    server = ForkServer(BROKEN_ADAPTER, folder=config.folder)
    try:
        yield replace(config, fork_server=server)
    finally:
        await server.close()


def _broken_adapter(subject: Subject, config: AdapterConfig, python_adapter: AdapterConfig) -> AdapterConfig:
    if subject.kind == "adapter" and subject.sdk == _SDK:
        return replace(python_adapter, environment={"MQ9_MUTANT": subject.name})
    if subject.kind == "adapter":
        return replace(config, environment={"MQ9_ADAPTER_MUTANT": subject.name})
    return config


class Baseline:
    """What the scenarios say of the unbroken broker and SDK: a scenario that fails anyway catches nothing."""

    def __init__(self, options: RunOptions, configs: Mapping[str, AdapterConfig]) -> None:
        self._options, self._configs = options, configs
        self._idle: list[Worker] = []
        self._known: dict[tuple[str, str], asyncio.Task[Result]] = {}

    def begin(self, task: Task) -> asyncio.Task[Result]:
        """Plays a scenario without any mutant, once."""
        key = (task.scenario.name, task.column)
        if key not in self._known:
            adapter = self._configs[task.adapter.name] if task.adapter is not None else None
            self._known[key] = asyncio.ensure_future(self._play(Task(task.scenario, adapter)))
        return self._known[key]

    async def problem(self, task: Task) -> str | None:
        """Says what is wrong with a scenario without any mutant, None if it passes."""
        result = await self.begin(task)
        return None if result.status is Status.PASSED else result.reason

    async def _play(self, task: Task) -> Result:
        worker = self._idle.pop() if self._idle else Worker(self._options)
        try:
            return await worker.run(task)
        finally:
            self._idle.append(worker)

    async def close(self) -> None:
        """Ends brokers and adapters."""
        await asyncio.gather(*self._known.values(), return_exceptions=True)
        for worker in self._idle:
            await worker.close()


async def _try(
    subject: Subject,
    options: RunOptions,
    scenarios: list[Scenario],
    smoke: Scenario,
    adapter: AdapterConfig,
    baseline: Baseline,
) -> Outcome:
    """One mutant: smoke, then claiming scenarios until one fails."""
    outcome = Outcome(subject)
    began = time.monotonic()
    worker = Worker(options)
    try:
        result = await worker.run(Task(smoke, None if subject.kind == "broker" else adapter))
        outcome.smoke = result.status is Status.PASSED
        if not outcome.smoke:
            outcome.problem = f"does not pass {SMOKE}: {result.reason}"
            return outcome
        for task in _tasks(subject, scenarios, adapter):
            outcome.tried += 1
            if task.scenario.timeout_s > _LONG_S:
                baseline.begin(task)
            result = await worker.run(task)
            if result.status is Status.ERROR:
                outcome.problem = f"{task.scenario.name} could not be played: {result.reason}"
                return outcome
            if result.status is Status.FAILED:
                anyway = await baseline.problem(task)
                if anyway is not None:
                    outcome.problem = f"{task.scenario.name} fails without the mutant too: {anyway}"
                    continue
                outcome.killed_by, outcome.reason, outcome.problem = task.scenario.name, result.reason, ""
                return outcome
        outcome.problem = outcome.problem or (
            f"survives all {outcome.tried} scenarios that cover {subject.requirement}"
            if outcome.tried
            else f"no scenario covers {subject.requirement}"
        )
    except (HarnessError, ScenarioError) as error:
        outcome.problem = str(error)
    finally:
        await worker.close()
        outcome.seconds = time.monotonic() - began
    return outcome


def _tasks(subject: Subject, scenarios: list[Scenario], adapter: AdapterConfig) -> list[Task]:
    claiming = [s for s in scenarios if subject.requirement in s.covers and not s.other]
    claiming.sort(key=lambda scenario: scenario.timeout_s)
    if subject.kind == "adapter":
        return [Task(scenario, adapter) for scenario in claiming if scenario.needs_sdk]
    raw = [s for s in claiming if not s.needs_sdk or s.not_raw() is None]
    rest = [s for s in claiming if s not in raw and s.layer == "L3"]
    return [Task(scenario, None) for scenario in raw] + [Task(scenario, adapter) for scenario in rest]


def _print(console: Console, outcome: Outcome, *, reason: bool) -> None:
    subject = outcome.subject
    head = f"{subject.place:<15} {subject.requirement:<14} {subject.name:<36} {outcome.seconds:5.1f} s "
    if outcome.dead:
        console.print(f"[green]caught  [/] {head} {outcome.killed_by}", markup=True)
        if reason:
            console.print(f"           {outcome.reason[:200]}", markup=False, style="dim")
    else:
        console.print(f"[bold red]SURVIVES[/] {head}")
        console.print(f"           {outcome.problem[:600]}", markup=False)


def _write(outcomes: list[Outcome], folder: Path) -> None:
    """The kill matrix as JSON and Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    data = [
        {
            "mutant": o.subject.name,
            "kind": o.subject.kind,
            "sdk": o.subject.sdk if o.subject.kind == "adapter" else None,
            "requirement": o.subject.requirement,
            "smoke": o.smoke,
            "caught": o.dead,
            "by": o.killed_by,
            "because": o.reason,
            "problem": o.problem,
            "seconds": round(o.seconds, 2),
        }
        for o in outcomes
    ]
    (folder / "mutants.json").write_text(
        json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8", "backslashreplace"
    )
    caught = sum(o.dead for o in outcomes)
    lines = [
        "# Kill matrix",
        "",
        f"{caught} of {len(outcomes)} mutants are caught by a scenario that covers what they break;"
        f" all pass `{SMOKE}` first.",
        "",
        "| mutant | in | breaks | smoke | caught by |",
        "|---|---|---|---|---|",
    ]
    for o in outcomes:
        verdict = o.killed_by if o.dead else f"**SURVIVES** {o.problem}".replace("|", "\\|")
        lines.append(
            f"| {o.subject.name} | {o.subject.place} | {o.subject.requirement} |"
            f" {'passes' if o.smoke else 'FAILS'} | {verdict} |"
        )
    (folder / "mutants.md").write_text("\n".join(lines) + "\n", "utf-8", "backslashreplace")
