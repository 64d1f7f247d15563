"""Plays one scenario against one implementation: connections, steps, assertions, clean-up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .adapter import AdapterProcess, SdkClient
from .brokers import Broker, ReferenceBroker
from .handles import Call, Consumer, Iteration, KeepAlive, SubscriptionHandle
from .matching import match, show
from .patience import PATIENCE
from .proxy import ClientWire, RuleBook, ServerOptions
from .rawnats import RawClient, RawOperations, body_bytes, header_bytes, request_parts
from .results import CallFailed, CallOptions, Failure, HarnessError
from .scenario import Scenario, Step, kind_of
from .spec import Spec
from .tcp import TcpClient
from .timeline import Timeline
from .values import ScenarioError, Variables, milliseconds
from .wire import WireLog, check_count, check_step, find_sequence, transcript

_RUNS = itertools.count(1)
_CLOSE_WITHIN_S = 15.0
# How long no request goes out before a scenario with something under way counts as ended, and how often at
# most that is looked at.
_QUIET_S = 0.1
# How long a call that is begun while connections are refused is looked for.
_UNCONNECTED_S = 0.2
_MOST_LOOKS = 10
_STEM = f"s{random.SystemRandom().randrange(16**6):06x}"

Handle = Call | Consumer | Iteration | KeepAlive | SubscriptionHandle


@dataclass
class Stage:
    """What a scenario is played on: a broker, and the adapter of an SDK or none for raw requests."""

    spec: Spec
    broker: Broker
    adapter: AdapterProcess | None = None
    new_broker: Callable[[Mapping[str, Any]], Awaitable[ReferenceBroker]] | None = None
    other: AdapterProcess | None = None
    """Plays the clients that the scenario gives to another SDK."""

    @property
    def adapters(self) -> list[AdapterProcess]:
        """The adapters that take part, each once."""
        found = [adapter for adapter in (self.adapter, self.other) if adapter is not None]
        return found[:1] if self.other is self.adapter else found

    def adapter_of(self, client: str, scenario: Scenario) -> AdapterProcess | None:
        """The adapter that plays a client."""
        return self.other if client in scenario.other else self.adapter


@dataclass
class Player:
    """One run of one scenario."""

    scenario: Scenario
    stage: Stage
    timeline: Timeline = field(default_factory=Timeline)
    current: Step | None = None

    def __post_init__(self) -> None:
        self.number = next(_RUNS)
        self.variables = Variables(f"{_STEM}.{self.number}.")
        self.broker = self.stage.broker
        self.sdk_clients: dict[str, SdkClient | RawOperations] = {}
        self.wires: dict[str, ClientWire] = {}
        self.raw_clients: dict[str, RawClient] = {}
        self.tcp_clients: dict[str, TcpClient] = {}
        self.handles: dict[str, Handle] = {}
        self.own_broker: ReferenceBroker | None = None
        scripted = "scripted" in self.scenario.data
        self.rules = RuleBook(self.variables, scripted)
        self.rules.replace(self.scenario.data.get("scripted") or self.scenario.data.get("intercept") or [])

    async def play(self) -> None:
        """Plays the scenario; raises Failure, HarnessError or ScenarioError."""
        for adapter in self.stage.adapters:
            adapter.timeline = self.timeline
            adapter.errors.clear()
        try:
            try:
                await asyncio.wait_for(self._play(), self.scenario.timeout_s)
            except asyncio.TimeoutError:
                raise Failure(f"not finished within {self.scenario.timeout_s:g} s") from None
        finally:
            await self._clean_up()

    def transcript(self) -> dict[str, Any]:
        """What the SDK sent, in a form that can be compared with other SDKs."""
        return transcript([wire.log for wire in self.wires.values()], self.variables)

    async def _play(self) -> None:
        if "broker" in self.scenario.data and not self.scenario.wants_no_agents:
            if self.stage.new_broker is None:
                raise HarnessError("this scenario needs a broker of its own")
            self.own_broker = await self.stage.new_broker(self.scenario.data["broker"] or {})
            self.broker = self.own_broker
        self.broker.timeline = self.timeline
        for name in self.scenario.sdk_clients():
            await self._open_client(name)
        await self._run(self.scenario.steps)
        await self._settle()
        for wire_problem in self.rules.problems:
            raise Failure(wire_problem)
        for name, raw in self.raw_clients.items():
            for error in raw.errors:
                raise Failure(f"{name} was told: {error}")
        for adapter in self.stage.adapters:
            if adapter.errors:
                raise HarnessError("; ".join(adapter.errors))

    async def _settle(self) -> None:
        """Lets what goes on by itself come to rest, so that runs end at the same point; notes that point."""
        if any(isinstance(handle, (Consumer, Iteration, KeepAlive)) for handle in self.handles.values()):
            for _ in range(_MOST_LOOKS):
                before = [len(wire.log.records) for wire in self.wires.values()]
                await asyncio.sleep(_QUIET_S)
                if before == [len(wire.log.records) for wire in self.wires.values()]:
                    break
        for wire in self.wires.values():
            wire.log.end = len(wire.log.records)

    async def _run(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            if step.action == "repeat":
                for index in range(int(step.args)):
                    self.variables.bind("i", index)
                    await self._run(step.steps)
            elif step.action == "for":
                for values in step.args:
                    for name, value in values.items():
                        self.variables.bind(name, self.variables.resolve(value))
                    await self._run(step.steps)
            else:
                self.current = step
                self.timeline.add("step", f"line {step.line}: {step.title} {show(step.args, 200)}")
                await self._step(step)

    async def _step(self, step: Step) -> None:
        if step.target is None:
            await self._standalone(step)
            return
        kind = kind_of(step.target, self.scenario.handles)
        if kind == "client":
            await self._client_step(step)
        elif kind == "raw":
            await self._raw_step(step)
        elif kind == "tcp":
            client = self.tcp_clients.setdefault(step.target, TcpClient(self.broker.address, self.timeline))
            await client.act(step.action, self.variables.resolve(step.args), step.args)
        elif kind == "http":
            reply = await self.broker.http_request(
                step.action.upper(), str(step.args["path"]), _json_body(self.variables.resolve(step.args))
            )
            self.check(step, reply.as_data())
        else:
            await self._handle_step(step)

    async def _standalone(self, step: Step) -> None:
        if step.action == "clock":
            await self.broker.advance(milliseconds(str(step.args)))
        elif step.action == "sleep":
            await asyncio.sleep(milliseconds(str(step.args)) / 1000)
        elif step.action == "broker":
            await self._broker_step(str(step.args))
        elif step.action == "server":
            for wire in self.wires.values():
                await wire.refuse(refuse=step.args == "refuse")
                if step.args != "accept":
                    await wire.disconnect()
        else:
            self.rules.replace(step.args)

    async def _broker_step(self, what: str) -> None:
        broker = self.own_broker
        if broker is None:
            raise ScenarioError("`broker` steps need a broker of the scenario's own")
        if what in {"stop", "restart"}:
            await broker.stop()
        elif what == "kill":
            await broker.kill()
        if what != "stop":
            await broker.start()
            for client in self.raw_clients.values():
                await client.connect()

    # SDK clients

    async def _open_client(self, name: str) -> None:
        options = dict((self.scenario.data.get("clients") or {}).get(name) or {})
        adapter = self.stage.adapter_of(name, self.scenario)
        if adapter is None:
            timeout_s = float(options.get("timeout_ms", 5000)) / 1000
            raw = await self._raw(f"raw.{name}")
            self.sdk_clients[name] = RawOperations(self.stage.spec, raw, timeout_s)
            return
        upstream = None if self.rules.scripted else self.broker.address
        server = self.scenario.data.get("server") or {}
        wire = ClientWire(
            name,
            self.stage.spec,
            self.rules,
            self.timeline,
            upstream,
            ServerOptions(server.get("info") or {}, server.get("require") or {}),
        )
        await wire.start()
        self.wires[name] = wire
        client = SdkClient(self.stage.spec, adapter, f"s{self.number}.{name}")
        self.sdk_clients[name] = client
        if options.pop("connect", None) != "manual":
            await client.connect(self._connect_options(name, options))

    def _connect_options(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        self.variables.bind("url", self.wires[name].url)
        if not self.variables.has("dead_url"):
            self.variables.bind("dead_url", f"nats://127.0.0.1:{_dead_port()}")
        resolved = self.variables.resolve(dict(options))
        return {"servers": self.wires[name].url, **resolved}

    async def _client_step(self, step: Step) -> None:
        assert step.target is not None
        client = self.sdk_clients[step.target]
        wire = self.wires.get(step.target)
        before = len(wire.log.records) if wire else 0
        if step.action == "wire":
            await self._wire_step(step, wire)
            return
        outcome: Callable[[], Awaitable[Any]]
        if step.action in self.stage.spec.by_method:
            args = self.variables.resolve(step.args)
            if step.label:
                await self._begin_call(step, client, args)
                return
            options = CallOptions(decode=tuple(step.extra.get("decode", ())))
            outcome = lambda: client.call(step.action, args, options)  # noqa: E731
        elif isinstance(client, RawOperations):
            outcome = client.close
        elif step.action == "connect":
            outcome = lambda: client.connect(self._connect_options(step.target or "", step.args))  # noqa: E731
        elif step.action == "close":
            if step.label:
                self.handles[step.label] = Call(asyncio.ensure_future(client.close()))
                await asyncio.sleep(0.05)
                return
            outcome = client.close
        elif step.action == "connection_open":
            outcome = lambda: client.adapter.request("connection_open", client=client.name)  # noqa: E731
        else:
            await self._begin_background(step, client)
            return
        await self.check_outcome(step, outcome)
        if wire is not None and "wire" in step.extra:
            check_step(step.extra["wire"], wire.log.records[before:], self.variables)

    async def _begin_call(self, step: Step, client: SdkClient | RawOperations, args: dict[str, Any]) -> None:
        assert step.label is not None and step.target is not None
        if isinstance(client, RawOperations):
            task = asyncio.ensure_future(client.call(step.action, args, CallOptions()))
            self.handles[step.label] = Call(task)
            await asyncio.sleep(0)
            await client.barrier()
            return
        wire = self.wires[step.target]
        before = len(wire.log.records)
        number, future = client.start_call(step.action, args, CallOptions())
        self.handles[step.label] = Call(
            asyncio.ensure_future(_decoded(client, step.action, future)), number, client.adapter
        )
        # Without a connection nothing can be sent: the call waits for one, or fails.
        patience = _UNCONNECTED_S if wire.refuses else PATIENCE.request_s
        await wire.log.wait_until(lambda: len(wire.log.records) > before or future.done(), patience)
        await wire.barrier()

    async def _begin_background(self, step: Step, client: SdkClient) -> None:
        assert step.label is not None
        label = f"s{self.number}.{step.label}"
        channel = client.adapter.channel(label)
        args = self.variables.resolve(step.args)
        handle: Consumer | Iteration | KeepAlive
        if step.action == "consume":
            plan = self.variables.resolve(step.extra.get("handler", "ok"))
            handle = Consumer(client, channel, self, plan)
            start = handle.start(args, fail_error_hook=step.extra.get("error_hook") == "fail")
        elif step.action == "iterate":
            handle = Iteration(client, channel, self)
            start = handle.start(args)
        else:
            handle = KeepAlive(client, channel, self)
            start = handle.start(args)
        self.handles[step.label] = handle
        await self.check_outcome(step, lambda: start)

    async def _wire_step(self, step: Step, wire: ClientWire | None) -> None:
        if wire is None:
            raise ScenarioError("`wire` needs an SDK client")
        log = wire.log
        if step.args == "mark":
            log.mark = len(log.records)
            return
        for what, wanted in step.args.items():
            if what == "sees":
                await self._wire_sees(log, wanted)
            elif what == "never":
                for rule in wanted:
                    trial = Variables(self.variables.stem, dict(self.variables.bound))
                    if not find_sequence([rule], log.records[log.mark :], trial)[1]:
                        raise Failure(f"wire: {show(rule)} was sent")
            elif what == "count":
                await self._wire_count(log, wanted)
            else:
                raise ScenarioError(f"wire: {what!r} is none of mark, sees, never, count")

    async def _wire_count(self, log: WireLog, wanted: Mapping[str, Any]) -> None:
        def problems() -> list[str]:
            return check_count(wanted, log.records[log.mark :], self.variables)

        await log.wait_until(lambda: not problems(), 1.0)
        self.report(problems())

    async def _wire_sees(self, log: WireLog, wanted: list[Mapping[str, Any]]) -> None:
        found = await log.wait_until(
            lambda: not find_sequence(wanted, log.records[log.mark :], self.variables)[1], PATIENCE.request_s
        )
        variables, missing = find_sequence(wanted, log.records[log.mark :], self.variables)
        if not found or missing:
            sent = "; ".join(record.describe() for record in log.records[log.mark :][-10:]) or "nothing"
            raise Failure(f"wire: {show(missing[0])} was not sent; the newest requests: {sent}")
        self.variables.bound.update(variables.bound)

    # raw clients

    async def _raw(self, name: str) -> RawClient:
        client = self.raw_clients.get(name)
        if client is None:
            client = RawClient(name, *self.broker.address(), self.timeline)
            self.raw_clients[name] = client
            await client.connect()
        return client

    async def _raw_step(self, step: Step) -> None:
        assert step.target is not None
        client = await self._raw(step.target)
        if step.action in self.stage.spec.by_method:
            operations = RawOperations(self.stage.spec, client)
            args = self.variables.resolve(step.args)
            if step.label:
                await self._begin_call(step, operations, args)
                return
            await self.check_outcome(step, lambda: operations.call(step.action, args, CallOptions()))
        elif step.action == "requests":
            parts = [request_parts(self.variables.resolve(item)) for item in step.args]
            futures = client.start_requests(parts)
            await self.check_outcome(step, lambda: _all_replies(futures))
        elif step.action == "request":
            await self._raw_request(step, client)
        elif step.action == "publish":
            args = self.variables.resolve(step.args)
            subject, headers, payload = request_parts(args)
            client.publish(subject, payload, headers, args.get("reply"))
            await client.flush()
        elif step.action == "subscribe":
            assert step.label is not None
            args = self.variables.resolve(step.args)
            subscription = client.subscribe(str(args["subject"]), args.get("queue"), args.get("max"))
            await client.flush()
            self.handles[step.label] = SubscriptionHandle(client, subscription, self)
        elif step.action == "flush":
            await client.flush()
        elif step.action == "connect":
            options = dict(self.variables.resolve(step.args))
            await self.check_outcome(step, lambda: client.connect(options))
        else:
            await client.close()

    async def _raw_request(self, step: Step, client: RawClient) -> None:
        args = self.variables.resolve(step.args)
        subject, _, payload = request_parts(args)
        headers = header_bytes(args.get("headers"))
        timeout_s = float(args.get("timeout_ms", 5000)) / 1000

        async def reply() -> Any:
            try:
                return (await client.request(subject, payload, headers, timeout_s)).as_data()
            except CallFailed as error:
                if error.kind == "timeout":
                    return {"none": True}
                raise

        if step.label:
            self.handles[step.label] = Call(asyncio.ensure_future(reply()))
            await asyncio.sleep(0)
            await client.flush()
            return
        await self.check_outcome(step, reply)

    # handles and assertions

    async def _handle_step(self, step: Step) -> None:
        assert step.target is not None
        handle = self.handles.get(step.target)
        if handle is None:
            raise ScenarioError(f"{step.target} is not under way yet")
        await handle.act(step, self)

    async def flush_raw_clients(self) -> None:
        """Returns when everything that raw clients have sent is handled, and what came of it has arrived."""
        for _ in range(2):
            for client in self.raw_clients.values():
                if client.connected:
                    await client.flush()

    async def check_outcome(self, step: Step, call: Callable[[], Awaitable[Any]]) -> None:
        """Awaits a call and compares its result, or its failure, with what the step expects."""
        try:
            result = await call()
        except CallFailed as error:
            self.timeline.add("runner", f"{step.title} failed: {error}")
            expected = step.extra.get("expect_error")
            if expected is None:
                raise Failure(f"{step.title} failed: {error}") from None
            self.report(match(expected, error.as_data(), self.variables, "error"))
            return
        if "expect_error" in step.extra:
            raise Failure(
                f"{step.title} succeeded with {show(result)}, expected {show(step.extra['expect_error'])}"
            )
        self.check(step, result)

    def check(self, step: Step, result: Any) -> None:
        """Compares a result with the assertions beside the step."""
        problems: list[str] = []
        if "expect" in step.extra:
            problems += match(step.extra["expect"], result, self.variables)
        for key, field_name in (("msg_ids", "msg_id"), ("payloads", "payload")):
            if key in step.extra:
                messages = result.get("messages") if isinstance(result, Mapping) else result
                if not isinstance(messages, list):
                    problems.append(f"{key}: expected messages, got {show(result)}")
                    continue
                values = [message.get(field_name) for message in messages]
                problems += match(step.extra[key], values, self.variables, key)
        self.report(problems)

    @staticmethod
    def report(problems: list[str]) -> None:
        """Raises Failure if there are problems."""
        if problems:
            raise Failure("; ".join(problems))

    # the end

    async def _clean_up(self) -> None:
        problems: list[str] = []
        for handle in self.handles.values():
            with contextlib.suppress(CallFailed, HarnessError, asyncio.TimeoutError):
                await asyncio.wait_for(handle.abandon(), 5)
        for name, client in self.sdk_clients.items():
            if isinstance(client, SdkClient) and client.connected and client.adapter.alive:
                try:
                    await asyncio.wait_for(client.close(), _CLOSE_WITHIN_S)
                except CallFailed as error:
                    self.timeline.add("runner", f"closing {name}: {error}")
                except (HarnessError, asyncio.TimeoutError) as error:
                    problems.append(f"closing client {name}: {error or 'no answer'}")
        for wire in self.wires.values():
            await wire.close()
        for raw in self.raw_clients.values():
            await raw.close()
        for tcp in self.tcp_clients.values():
            await tcp.close()
        for adapter in self.stage.adapters:
            adapter.timeline = None
            if problems:
                await adapter.kill()
        self.broker.timeline = None
        if self.own_broker is not None:
            try:
                await self.own_broker.stop()
            except HarnessError as error:
                problems.append(str(error))
            self.own_broker.remove_data()
        if problems:
            raise HarnessError("; ".join(problems))


async def _decoded(client: SdkClient, method: str, future: asyncio.Future[Any]) -> Any:
    return client.decode(method, await future)


async def _all_replies(futures: list[asyncio.Future[Any]]) -> list[Any]:
    try:
        deliveries = await asyncio.wait_for(asyncio.gather(*futures), 10)
    except asyncio.TimeoutError:
        missing = sum(not future.done() for future in futures)
        raise CallFailed("timeout", message=f"{missing} of {len(futures)} replies did not come") from None
    return [delivery.as_data() for delivery in deliveries]


def _json_body(args: Mapping[str, Any]) -> str:

    return body_bytes(args).decode()


def _dead_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
