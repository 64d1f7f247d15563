"""The runner: takes scenarios and implementations, plays each pair on a worker, and collects the verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import fork_server
from .adapter import AdapterConfig, AdapterProcess
from .brokers import BROKER_COMMAND, Broker, ReferenceBroker
from .fork_server import ForkServer
from .player import Player, Stage
from .rawnats import RawClient, RawOperations
from .results import CallFailed, CallOptions, Failure, HarnessError
from .scenario import Scenario
from .spec import Spec
from .timeline import Timeline
from .values import ScenarioError
from .vectors import read_vectors
from .verdict import RAW, Column, KnownFailure, Result, RunReport, Status, judge

Progress = Callable[[Result], None]

_NO_BROKER = Broker(("127.0.0.1", 0))
"""Stands in where the runner plays the broker itself."""


@dataclass
class RunOptions:
    """What a run is made of."""

    spec: Spec
    scenarios: list[Scenario]
    adapters: list[AdapterConfig]
    known: list[KnownFailure] = field(default_factory=list)
    workers: int = 2
    external: Broker | None = None
    broker_command: list[str] = field(default_factory=lambda: list(BROKER_COMMAND))
    broker_environment: Mapping[str, str] = field(default_factory=dict)
    fork_server: ForkServer | None = None
    raw: bool = True
    stop_at_failure: bool = False
    progress: Progress | None = None
    python: str = sys.executable


@dataclass(frozen=True)
class Task:
    """One scenario for one column; no adapter means raw requests; `other` plays the clients of `other`."""

    scenario: Scenario
    adapter: AdapterConfig | None
    other: AdapterConfig | None = None

    @property
    def column(self) -> str:
        """The name of the column."""
        return self.adapter.name if self.adapter else RAW


def plan(options: RunOptions) -> tuple[list[Task], list[str]]:
    """Which scenario runs where; and notes on what cannot run here."""
    tasks, notes = [], []
    for scenario in options.scenarios:
        if options.external is not None:
            why = scenario.not_elsewhere(has_clock=options.external.has_clock)
            why = why or (scenario.not_raw() if scenario.needs_sdk else None)
            if why:
                notes.append(f"{scenario.name} was not run: {why}")
                continue
        if scenario.other:
            tasks += [
                Task(scenario.with_other(other.name), adapter, other)
                for adapter in options.adapters
                for other in options.adapters
            ]
        elif scenario.needs_sdk:
            tasks += [Task(scenario, adapter) for adapter in options.adapters]
        if options.raw and (not scenario.needs_sdk or scenario.not_raw() is None):
            tasks.append(Task(scenario, None))
    tasks.sort(key=lambda task: -task.scenario.timeout_s)  # the long ones first
    return tasks, notes


class Worker:
    """One line of work: a broker, and adapters as they are needed."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._broker: Broker | None = options.external
        self._without_agents: ReferenceBroker | None = None
        self._adapters: dict[str, AdapterProcess] = {}

    async def run(self, task: Task) -> Result:
        """Plays one scenario and judges it."""
        began = time.monotonic()
        status, reason, player = Status.PASSED, "", None
        try:
            player = Player(task.scenario, await self._stage(task))
            await player.play()
        except Failure as failure:
            status, reason = Status.FAILED, str(failure)
        except (HarnessError, ScenarioError) as error:
            status, reason = Status.ERROR, str(error)
        except CallFailed as error:
            status, reason = Status.FAILED, f"a call that was expected to succeed failed: {error}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            status, reason = Status.ERROR, f"{type(error).__name__}: {error}"
        result = Result(task.scenario, task.column, status, time.monotonic() - began, reason)
        if player is not None:
            result.line = player.current.line if player.current and status is not Status.PASSED else None
            result.timeline = player.timeline.lines() if status is not Status.PASSED else []
            result.transcript = player.transcript()
        result.status, result.excuse = judge(status, task.scenario.name, task.column, self._options.known)
        if result.status is Status.UNEXPECTED:
            result.reason = result.excuse or ""
        if status is not Status.PASSED:
            for config in (task.adapter, task.other):
                if config is not None:
                    await self._replace_adapter(config.name)
        if self._options.external is None and (
            status is not Status.PASSED or not await self._is_left_without_agents(task.scenario)
        ):
            await self._drop_brokers()
        return result

    async def _is_left_without_agents(self, scenario: Scenario) -> bool:
        if not scenario.wants_no_agents or self._without_agents is None:
            return True
        return await _agents_are_removed(self._options.spec, self._without_agents)

    async def _stage(self, task: Task) -> Stage:
        if task.scenario.layer == "L2":
            broker = _NO_BROKER
        elif task.scenario.wants_no_agents:
            if self._without_agents is None:
                self._without_agents = await self._new_broker({})
            broker = self._without_agents
        else:
            if self._broker is None or (isinstance(self._broker, ReferenceBroker) and not self._broker.alive):
                self._broker = await self._new_broker({})
            broker = self._broker
        adapter = await self._adapter(task.adapter, task.scenario) if task.adapter else None
        other = await self._adapter(task.other, task.scenario) if task.other else None
        new_broker = None if self._options.external is not None else self._new_broker
        return Stage(self._options.spec, broker, adapter, new_broker, other)

    async def _adapter(self, config: AdapterConfig, scenario: Scenario) -> AdapterProcess:
        adapter = self._adapters.get(config.name)
        if adapter is None or not adapter.alive:
            adapter = AdapterProcess(config, self._options.python)
            self._adapters[config.name] = adapter
            await adapter.start()
        lacking = scenario.features() - adapter.features
        if lacking:
            raise Failure(f"the adapter of {config.name} does not offer {', '.join(sorted(lacking))}")
        return adapter

    async def _new_broker(self, settings: Mapping[str, Any]) -> ReferenceBroker:
        broker = ReferenceBroker(
            ("127.0.0.1", 0),
            command=self._options.broker_command,
            store=str(settings.get("store", "memory")),
            options=settings.get("options") or {},
            environment=self._options.broker_environment,
            fork_server=self._options.fork_server,
        )
        await broker.start()
        return broker

    async def _replace_adapter(self, name: str) -> None:
        adapter = self._adapters.pop(name, None)
        if adapter is not None:
            await adapter.kill()
            await adapter.stop()

    async def _drop_brokers(self) -> None:
        for broker in (self._broker, self._without_agents):
            if isinstance(broker, ReferenceBroker):
                await broker.kill()
                broker.remove_data()
        self._broker = self._without_agents = None

    async def close(self) -> list[str]:
        """Ends everything; gives what was wrong with that."""
        problems = []
        for adapter in self._adapters.values():
            problem = await adapter.stop()
            if problem:
                problems.append(problem)
        for broker in (self._broker, self._without_agents):
            if isinstance(broker, ReferenceBroker):
                try:
                    await broker.stop()
                except HarnessError as error:
                    problems.append(str(error))
                broker.remove_data()
        return problems


async def _agents_are_removed(spec: Spec, broker: Broker) -> bool:
    """Leaves a broker without agents, for the next scenario that wants one such; False if it keeps some."""
    client = RawClient("runner", *broker.address(), Timeline())
    removed: set[str] = set()
    try:
        await client.connect()
        operations = RawOperations(spec, client)
        while agents := (await operations.call("agent_discover", {"limit": 100}, CallOptions()))["agents"]:
            names = {agent["name"] for agent in agents}
            if names & removed:  # a broken broker, as mutants are
                return False
            for name in names:
                await operations.call("agent_unregister", {"name": name}, CallOptions())
            removed |= names
    except (CallFailed, HarnessError, OSError, asyncio.TimeoutError, KeyError, TypeError):
        return False
    finally:
        await client.close()
    return True


async def run(
    options: RunOptions, all_scenarios: list[Scenario], *, filtered: bool, strict: bool
) -> RunReport:
    """Runs everything and concludes."""
    began = time.monotonic()
    columns, usable = await _columns(options)
    options.adapters = usable
    tasks, notes = plan(options)
    report = RunReport(
        options.spec, options.scenarios, columns, notes=notes, filtered=filtered, strict=strict
    )
    queue = list(reversed(tasks))

    async def work() -> None:
        worker = Worker(options)
        try:
            while queue:
                result = await worker.run(queue.pop())
                report.results.append(result)
                if options.progress:
                    options.progress(result)
                if options.stop_at_failure and result.status.red:
                    queue.clear()
        finally:
            report.problems += await worker.close()

    count = max(1, min(options.workers, len(tasks)))
    async with forking(options):
        await asyncio.gather(*(work() for _ in range(count)))
    report.results.sort(key=lambda result: (result.scenario.name, result.column))
    report.seconds = time.monotonic() - began
    report.conclude(options.known, all_scenarios)
    return report


@contextlib.asynccontextmanager
async def forking(options: RunOptions) -> AsyncIterator[None]:
    """Lets the reference brokers of a run be forked, where that can be done."""
    if not fork_server.available() or options.broker_command != BROKER_COMMAND:
        yield
        return
    options.fork_server = ForkServer(environment=options.broker_environment)
    try:
        yield
    finally:
        await options.fork_server.close()


async def _columns(options: RunOptions) -> tuple[list[Column], list[AdapterConfig]]:
    columns = [Column(RAW, f"spec {options.spec.version}")] if options.raw else []
    usable = []
    for config in options.adapters:
        missing = config.missing()
        if missing:
            columns.append(Column(config.name, not_run=missing))
            continue
        await build(config)
        probe = AdapterProcess(config, options.python)
        try:
            await probe.start()
            column = Column(config.name, str(probe.hello.get("sdk_version", "")))
            if config.vectors is not None and config.vectors.is_file():
                column.vectors = read_vectors(config.vectors, options.spec)
            columns.append(column)
            usable.append(config)
        finally:
            await probe.stop()
    return columns, usable


async def build(config: AdapterConfig) -> None:
    """Runs the command that makes an adapter, if it has one; raises HarnessError if that fails."""
    if not config.build:
        return
    process = await asyncio.create_subprocess_exec(
        *config.build, cwd=config.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise HarnessError(
            f"adapter {config.name} does not build: {output.decode('utf-8', 'replace')[-2000:]}"
        )


def repository_root(spec_folder: Path) -> Path:
    """The folder that holds `sdks/` and `conformance/`."""
    return spec_folder.parent
