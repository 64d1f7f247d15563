"""What the suite takes from `spec/`: operations, types, requirements; and from them requests and results.

This reads the YAML itself and owes nothing to the generator: it is the second witness of what an operation
looks like on the wire.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .values import ScenarioError, json_bytes, payload_bytes


@dataclass(frozen=True)
class Requirement:
    """One requirement of the spec: its id, MUST / SHOULD / MAY, who must fulfil it, and its sentence."""

    id: str
    level: str
    by: str
    text: str
    operation: str | None = None


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operation, as the spec writes it."""

    name: str
    type: str
    place: str
    path: tuple[str, ...]
    header: str | None
    spread: bool
    optional: bool


@dataclass(frozen=True)
class Operation:
    """One operation: its names, its parameters, and where its result is in the reply."""

    name: str
    method: str
    subject: str
    parameters: dict[str, Parameter]
    body_constants: dict[str, str]
    reply: dict[str, Any]
    result: Any
    vectors: list[dict[str, Any]]
    retry: str
    timeout_adds: str | None
    """The parameter in milliseconds by which a reply may come later."""
    timeout_adds_ms: int
    """Its default."""

    @property
    def has_body(self) -> bool:
        """Says whether requests carry a JSON body."""
        return any(p.place == "body" for p in self.parameters.values())


@dataclass(frozen=True)
class RawRequest:
    """A request ready for the wire."""

    subject: str
    headers: list[tuple[str, str]]
    payload: bytes


@dataclass
class Spec:
    """The protocol, as far as the suite needs it."""

    version: str
    prefix: str
    operations: dict[str, Operation]
    requirements: dict[str, Requirement]
    kinds: frozenset[str]
    codes: frozenset[str]
    types: dict[str, Any]
    connect_options: frozenset[str]
    consume_parameters: frozenset[str]
    by_method: dict[str, Operation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.by_method = {operation.method: operation for operation in self.operations.values()}

    def operation_of(self, subject: str) -> str | None:
        """The name of the operation that a subject belongs to, None if there is none."""
        for operation in self.operations.values():
            stem = operation.subject.split(".{", maxsplit=1)[0]
            if subject == stem or (stem != operation.subject and subject.startswith(stem + ".")):
                return operation.name
        return None

    def request(self, operation: Operation, args: Mapping[str, Any]) -> RawRequest:
        """Builds a request without checking a single argument."""
        body: dict[str, Any] = {}
        subject, headers, payload = operation.subject, [], b""
        for name, value in self._ordered(operation, args):
            parameter = operation.parameters[name]
            if parameter.place == "subject":
                subject = subject.replace("{" + name + "}", str(value))
            elif parameter.place == "payload":
                payload = payload_bytes(value)
            elif parameter.place == "header":
                text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
                headers.append((parameter.header or name, text))
            elif parameter.place == "headers":
                headers += [(key, str(item)) for key, item in value.items()]
            elif parameter.spread:
                body = {**value, **body}
            elif parameter.place == "body":
                target = body
                for step in parameter.path[:-1]:
                    target = target.setdefault(step, {})
                target[parameter.path[-1]] = value
        for name, template in operation.body_constants.items():
            body.setdefault(name, args.get(template.strip("{}")))
        if operation.has_body:
            payload = json_bytes(body)
        return RawRequest(subject, headers, payload)

    @staticmethod
    def _ordered(operation: Operation, args: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name in args:
            if name not in operation.parameters:
                raise ScenarioError(f"{operation.method} has no parameter {name!r}")
        plain = [name for name in args if not operation.parameters[name].spread]
        spread = [name for name in args if operation.parameters[name].spread]
        return iter((name, args[name]) for name in plain + spread)

    def result(self, operation: Operation, reply: Mapping[str, Any]) -> Any:
        """The result of a successful reply, as an SDK's method gives it; payloads are bytes."""
        decoded = {
            name: self._decode(str(field_["type"]), reply[name])
            for name, field_ in operation.reply.items()
            if name in reply and reply[name] is not None
        }
        if operation.result is None:
            return {}
        return decoded.get(operation.result) if isinstance(operation.result, str) else decoded

    def _decode(self, type_name: str, value: Any) -> Any:
        if type_name.startswith("list<"):
            return (
                [self._decode(type_name[5:-1], item) for item in value] if isinstance(value, list) else value
            )
        if type_name == "message" and isinstance(value, Mapping):
            return {**value, "payload": _message_payload(value)}
        return value


def _message_payload(message: Mapping[str, Any]) -> bytes:
    text = message.get("payload") or ""
    if message.get("encoding") == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return str(text).encode()
    return str(text).encode()


def find_spec(given: str | None = None) -> Path:
    """The folder of the spec: as given, by MQ9_SPEC, or beside this package in the repository."""
    candidates = [Path(given)] if given else []
    if "MQ9_SPEC" in os.environ:
        candidates.append(Path(os.environ["MQ9_SPEC"]))
    candidates += [parent / "spec" for parent in [Path.cwd(), *Path(__file__).resolve().parents]]
    for candidate in candidates:
        if (candidate / "mq9.yaml").is_file():
            return candidate.resolve()
    raise ScenarioError(f"no spec found in {candidates[0]}: give --spec DIR, a folder that holds mq9.yaml")


def load_spec(folder: Path) -> Spec:
    """Reads the spec's YAML."""
    main = _read(folder / "mq9.yaml")
    errors = _read(folder / "errors.yaml")
    client = _read(folder / "client.yaml")
    requirements: dict[str, Requirement] = {}
    for source in (_read(folder / "requirements.yaml"), client):
        _add_requirements(requirements, source.get("requirements") or {}, None)
    operations: dict[str, Operation] = {}
    for path in sorted((folder / "operations").glob("*.yaml")):
        data = _read(path)
        operations[data["operation"]] = _operation(data)
        _add_requirements(requirements, data.get("requirements") or {}, data["operation"])
    for path in sorted((folder / "vectors").glob("*.yaml")):
        data = _read(path)
        operations[data["operation"]].vectors.extend(data["vectors"])
    return Spec(
        version=str(main["version"]),
        prefix=str(main["subject_prefix"]),
        operations=operations,
        requirements=requirements,
        kinds=frozenset(errors["kinds"]),
        codes=frozenset(errors["codes"]),
        types=_read(folder / "types.yaml"),
        connect_options=frozenset(client["connect"]["parameters"]),
        consume_parameters=frozenset(client["consume"]["parameters"]),
    )


def _read(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data = yaml.load(path.read_text("utf-8"), Loader=loader)  # noqa: S506 (a safe loader)
    if not isinstance(data, dict):
        raise ScenarioError(f"{path}: a YAML map was expected")
    return data


def _add_requirements(into: dict[str, Requirement], source: Mapping[str, Any], operation: str | None) -> None:
    for name, item in source.items():
        into[name] = Requirement(name, str(item["level"]), str(item["by"]), str(item["text"]), operation)


def _operation(data: Mapping[str, Any]) -> Operation:
    parameters = {}
    for name, item in (data.get("parameters") or {}).items():
        parameters[name] = Parameter(
            name=name,
            type=str(item["type"]),
            place=str(item["in"]),
            path=tuple(str(item.get("path", name)).split(".")),
            header=item.get("header"),
            spread=bool(item.get("spread", False)),
            optional=bool(item.get("optional", False)),
        )
    timeout_adds = data.get("timeout_adds")
    return Operation(
        name=str(data["operation"]),
        method=str(data["method"]),
        subject=str(data["subject"]),
        parameters=parameters,
        body_constants=dict(data.get("body_constants") or {}),
        reply=dict(data.get("reply") or {}),
        result=data.get("result"),
        vectors=list(data.get("vectors") or []),
        retry=str(data["retry"]),
        timeout_adds=timeout_adds,
        timeout_adds_ms=int(data["parameters"][timeout_adds].get("default", 0)) if timeout_adds else 0,
    )
