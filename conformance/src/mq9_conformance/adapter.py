"""The adapter process of an SDK: JSON lines to its stdin, JSON lines from its stdout. See ADAPTERS.md."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .fork_server import ForkedProcess, ForkServer
from .results import CallFailed, CallOptions, HarnessError
from .spec import Operation, Parameter, Spec
from .timeline import Timeline
from .values import canonical_json, json_bytes, payload_bytes

ANSWER_TIMEOUT_S = 30.0
EXIT_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DeclaredMutant:
    """A broken piece that an adapter puts in when MQ9_ADAPTER_MUTANT names it."""

    name: str
    requirement: str


@dataclass(frozen=True)
class AdapterConfig:
    """How an SDK's adapter is started, as its `adapter.yaml` says."""

    name: str
    command: list[str]
    folder: Path
    needs: list[str] = field(default_factory=list)
    build: list[str] | None = None
    vectors: Path | None = None
    """The JUnit file of the SDK's own tests, with its wire vectors."""
    environment: dict[str, str] = field(default_factory=dict)
    mutants: list[DeclaredMutant] = field(default_factory=list)
    fork_server: ForkServer | None = None
    """Forks the adapter, instead of `command`."""

    def missing(self) -> str | None:
        """Says why this adapter cannot run here, None if it can."""
        for tool in self.needs:
            if shutil.which(tool) is None:
                return f"{tool} is not installed"
        return None


def find_adapters(root: Path) -> list[AdapterConfig]:
    """Every `sdks/*/adapter/adapter.yaml` below a repository's root."""
    found = []
    for path in sorted(root.glob("sdks/*/adapter/adapter.yaml")):
        data = yaml.safe_load(path.read_text("utf-8"))
        if not isinstance(data, dict) or not {"sdk", "run"} <= data.keys():
            raise HarnessError(f"{path}: `sdk` and `run` were expected")
        mutants = data.get("mutants") or []
        if not all(isinstance(item, dict) and item.keys() == {"name", "requirement"} for item in mutants):
            raise HarnessError(f"{path}: mutants: a list of `name` and `requirement` was expected")
        found.append(
            AdapterConfig(
                name=str(data["sdk"]),
                command=[str(word) for word in data["run"]],
                folder=path.parent,
                needs=[str(tool) for tool in data.get("needs", [])],
                build=[str(word) for word in data["build"]] if data.get("build") else None,
                vectors=root / str(data["vectors"]) if data.get("vectors") else None,
                mutants=[DeclaredMutant(str(item["name"]), str(item["requirement"])) for item in mutants],
            )
        )
    return found


@dataclass
class Channel:
    """Events of one thing under way: a consumer, an iteration, a keep-alive."""

    label: str
    events: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)


class AdapterProcess:
    """One adapter process and the requests that are open with it."""

    def __init__(self, config: AdapterConfig, python: str) -> None:
        self.config, self._python = config, python
        self.hello: dict[str, Any] = {}
        self.timeline: Timeline | None = None
        self.errors: list[str] = []
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._channels: dict[str, Channel] = {}
        self._process: asyncio.subprocess.Process | ForkedProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stderr: list[str] = []

    async def start(self) -> None:
        """Starts the process and says hello."""
        self._process = await self._new_process()
        self._tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._read_errors())]
        self.hello = await self.request("hello", timeout_s=_START_TIMEOUT_S)
        if not isinstance(self.hello, dict) or "sdk" not in self.hello:
            raise HarnessError(
                f"adapter {self.config.name}: hello was answered {self.hello!r}, `sdk` was expected"
            )

    async def _new_process(self) -> asyncio.subprocess.Process | ForkedProcess:
        config = self.config
        if config.fork_server is not None:
            return await config.fork_server.spawn([], config.environment, config.folder)
        command = [self._python if word == "{python}" else word for word in config.command]
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                cwd=config.folder,
                env={**os.environ, **config.environment},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=2**26,
            )
        except OSError as error:
            raise HarnessError(
                f"adapter {config.name} does not start: {' '.join(command)}: {error}"
            ) from error

    @property
    def alive(self) -> bool:
        """Says whether the process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def features(self) -> frozenset[str]:
        """What the adapter says it can do besides plain calls."""
        return frozenset(self.hello.get("features", []))

    def channel(self, label: str) -> Channel:
        """The events of a label, from now on."""
        self._channels[label] = Channel(label)
        return self._channels[label]

    def send(self, operation: str, **fields: Any) -> tuple[int, asyncio.Future[Any]]:
        """Writes one request and gives its id and the future of its answer."""
        if self._process is None or self._process.stdin is None or not self.alive:
            raise HarnessError(f"adapter {self.config.name} is not running: {self.last_words()}")
        number = next(self._ids)
        line = json.dumps(
            {"id": number, "op": operation, **fields}, ensure_ascii=False, separators=(",", ":")
        )
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        self._note(f"> {line}")
        self._process.stdin.write(line.encode() + b"\n")
        return number, future

    async def request(self, operation: str, timeout_s: float = ANSWER_TIMEOUT_S, **fields: Any) -> Any:
        """Sends one request and waits for its answer; raises CallFailed or HarnessError."""
        number, future = self.send(operation, **fields)
        return await self.answer(number, future, timeout_s, operation)

    async def answer(self, number: int, future: asyncio.Future[Any], timeout_s: float, what: str) -> Any:
        """Waits for the answer of a request that was sent."""
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout_s)
        except asyncio.TimeoutError:
            message = (
                f"adapter {self.config.name} has not answered {what} (id {number}) within {timeout_s:g} s"
            )
            raise HarnessError(f"{message}: {self.last_words()}") from None

    def last_words(self) -> str:
        """What the adapter wrote last that is no answer: on stdout, and to stderr."""
        return " | ".join(self.errors[-2:] + self._stderr[-5:]) or "nothing on its stderr"

    async def stop(self) -> str | None:
        """Closes stdin, which ends an adapter; says what was wrong if it does not end by itself."""
        if self._process is None:
            return None
        problem = None
        if self.alive and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), EXIT_TIMEOUT_S)
            except asyncio.TimeoutError:
                problem = (
                    f"adapter {self.config.name} does not end within {EXIT_TIMEOUT_S:g} s after its input"
                )
                await self.kill()
        if problem is None and self._process.returncode:
            problem = f"adapter {self.config.name} ended with {self._process.returncode}: {self.last_words()}"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return problem

    async def kill(self) -> None:
        """Ends the process the hard way."""
        if self._process is not None and self.alive:
            self._process.kill()
            await self._process.wait()

    def _note(self, text: str) -> None:
        if self.timeline is not None:
            self.timeline.add("adapter", text)

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._note(f"< {line[:2000].decode('utf-8', 'replace').rstrip()}")
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                self.errors.append(f"not a line of the protocol ({error}): {line[:200]!r}")
        await self._process.wait()
        for future in self._open.values():
            if not future.done():
                future.set_exception(HarnessError(f"adapter {self.config.name} ended: {self.last_words()}"))
                future.exception()
        self._open.clear()

    async def _read_errors(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        while line := await self._process.stderr.readline():
            text = line.decode("utf-8", "replace").rstrip()
            self._stderr.append(text)
            del self._stderr[:-200]
            if self.timeline is not None:
                self.timeline.add("stderr", text)

    def _take(self, line: dict[str, Any]) -> None:
        if "event" in line:
            channel = self._channels.get(str(line["of"]))
            if channel is not None:
                channel.events.put_nowait(line)
            return
        future = self._open.pop(int(line["id"]), None)
        if future is None:
            raise ValueError(f"id {line['id']} is not open")
        if "harness_error" in line:
            future.set_exception(HarnessError(f"adapter {self.config.name}: {line['harness_error']}"))
        elif "error" in line:
            error = line["error"]
            future.set_exception(
                CallFailed(
                    str(error["kind"]), error.get("code"), error.get("field"), str(error.get("message", ""))
                )
            )
        elif "ok" in line:
            future.set_result(line["ok"])
        else:
            text = f"adapter {self.config.name}: an answer without ok, error and harness_error: {line}"
            future.set_exception(HarnessError(text))
        if future.exception() is not None:
            return


class SdkClient:
    """One client of an SDK inside an adapter process."""

    def __init__(self, spec: Spec, adapter: AdapterProcess, name: str) -> None:
        self.spec, self.adapter, self.name = spec, adapter, name
        self.connected = False

    async def connect(self, options: Mapping[str, Any]) -> None:
        """Connects; `servers` and the options of `connect` in the spec, durations as `…_ms`."""
        await self.adapter.request("connect", client=self.name, args=dict(options))
        self.connected = True

    async def close(self) -> None:
        """Closes the client."""
        self.connected = False
        await self.adapter.request("close", client=self.name)

    async def barrier(self) -> None:
        """Nothing here: the proxy on the wire does this."""

    async def call(self, method: str, args: Mapping[str, Any], options: CallOptions) -> Any:
        """Makes one call and gives its result; raises CallFailed."""
        number, future = self.start_call(method, args, options)
        wait_ms = args.get("max_wait_ms", 0)
        extra = wait_ms / 1000 if isinstance(wait_ms, (int, float)) else 0
        return self.decode(
            method, await self.adapter.answer(number, future, ANSWER_TIMEOUT_S + extra, method)
        )

    def start_call(
        self, method: str, args: Mapping[str, Any], options: CallOptions
    ) -> tuple[int, asyncio.Future[Any]]:
        """Sends the request of a call; `decode` turns the answer into the result."""
        operation = self.spec.by_method[method]
        fields: dict[str, Any] = {"client": self.name, "args": encode_arguments(operation, args)}
        if options.decode:
            fields["decode"] = list(options.decode)
        return self.adapter.send(method, **fields)

    def decode(self, method: str, answer: Any) -> Any:
        """The result of a call as scenarios compare it."""
        return decode_result(self.spec, self.spec.by_method[method], answer)


def encode_arguments(operation: Operation, args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in the adapter protocol: see the table of types in ADAPTERS.md."""
    encoded: dict[str, Any] = {}
    for name, value in args.items():
        parameter = operation.parameters.get(name)
        if parameter is None:
            raise HarnessError(f"{operation.method} has no parameter {name!r}")
        encoded.update(encode_argument(parameter, value))
    return encoded


def encode_argument(parameter: Parameter, value: Any) -> dict[str, Any]:
    """One argument in the adapter protocol."""
    if parameter.place == "payload":
        return _encode_payload(parameter.name, value)
    if parameter.type == "json_object":
        return {f"{parameter.name}_json": json_bytes(value).decode()}
    if "msg_id" in parameter.type:
        return {parameter.name: encode_ids(value)}
    return {parameter.name: value}


def encode_ids(value: Any) -> Any:
    """Message ids as decimal strings; what is no integer stays."""
    if isinstance(value, list):
        return [encode_ids(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _encode_payload(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {f"{name}_text": value}
    if isinstance(value, Mapping) and "text" in value:
        return {f"{name}_text": value["text"]}
    if isinstance(value, Mapping) and "json" in value:
        return {f"{name}_json": json_bytes(value["json"]).decode()}
    return {f"{name}_b64": base64.b64encode(payload_bytes(value)).decode()}


def decode_result(spec: Spec, operation: Operation, answer: Any) -> Any:
    """An adapter's answer as scenarios compare it: ids are integers, payloads bytes, JSON texts values."""
    if operation.result is None:
        return {} if answer in ({}, None) else answer
    if isinstance(operation.result, str):
        return decode_value(spec, str(operation.reply[operation.result]["type"]), answer)
    if not isinstance(answer, Mapping):
        raise HarnessError(
            f"{operation.method} was answered {canonical_json(answer)}, an object was expected"
        )
    return {
        name: decode_value(spec, str(operation.reply[name]["type"]), value)
        if name in operation.reply
        else value
        for name, value in answer.items()
    }


def decode_value(spec: Spec, type_name: str, value: Any) -> Any:
    """One value of an answer by its type in the spec."""
    if value is None:
        return None
    if type_name.startswith("list<"):
        return (
            [decode_value(spec, type_name[5:-1], item) for item in value]
            if isinstance(value, list)
            else value
        )
    if type_name in {"msg_id", "sent_msg_id"}:
        return decode_id(value)
    if type_name == "json_object" and isinstance(value, str):
        return json.loads(value)
    fields = spec.types["objects"].get(type_name, {}).get("fields")
    if fields and isinstance(value, Mapping):
        return decode_object(spec, fields, value)
    return value


def decode_object(spec: Spec, fields: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """An object of an answer, field by field."""
    result: dict[str, Any] = {}
    for name, item in value.items():
        if name == "payload_b64":
            result["payload"] = base64.b64decode(item)
        elif name.endswith("_json") and name[:-5] in fields:
            result[name[:-5]] = json.loads(item)
        elif name == "decoded_json":
            result["json"] = json.loads(item)
        elif name == "decoded_text":
            result["text"] = item
        else:
            result[name] = decode_value(spec, str(fields[name]["type"]), item) if name in fields else item
    return result


def decode_id(value: Any) -> int:
    """A message id, which adapters write as a decimal string so that no JSON parser rounds it."""
    if not isinstance(value, str) or not value.lstrip("-").isdigit():
        raise HarnessError(f"a msg_id came as {value!r}: adapters write them as decimal strings")
    return int(value)


async def quietly(awaitable: Any) -> None:
    """Awaits something whose failure does not matter any more."""
    with contextlib.suppress(CallFailed, HarnessError):
        await awaitable
