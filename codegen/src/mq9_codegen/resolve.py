"""From checked YAML to the resolved model: references expanded, names split, order fixed.

Everything here relies on `mq9_codegen.policy` having found no mistake.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from mq9_codegen.load import Sources
from mq9_codegen.model import (
    BodyField,
    Bounds,
    Classify,
    Client,
    ClientCall,
    Enum,
    EnumValue,
    ErrorCode,
    ErrorKind,
    Field,
    Header,
    Leases,
    Limit,
    Object,
    Operation,
    Parameter,
    Requirement,
    Result,
    RetryClass,
    Rule,
    Scalar,
    Segment,
    Spec,
    Type,
    Vector,
)
from mq9_codegen.names import words

_BOUNDS = tuple(asdict(Bounds()))
CLIENT_BASES = ("duration", "tls")
"""Types that only `connect` and `consume` may use: every language has its own form of them."""


def prose(value: Any) -> str:
    """Prose of the spec without the line breaks at its ends."""
    return str(value or "").strip()


def bounds_of(data: Mapping[str, Any], base: Bounds = Bounds()) -> Bounds:  # noqa: B008 - frozen
    """The bounds that a YAML mapping states, on top of `base`."""
    own = {key: data[key] for key in _BOUNDS if data.get(key) is not None}
    if "forbid" in own:
        own["forbid"] = tuple(own["forbid"])
    return replace(base, **own)


class Resolver:
    """Turns the sources of one specification into the model."""

    def __init__(self, sources: Sources, checks: Mapping[str, tuple[str, ...]]) -> None:
        self._sources = sources
        self._checks = checks
        self._types: Mapping[str, Any] = sources.data("types")

    def resolve(self) -> Spec:
        """The whole protocol."""
        sources = self._sources
        top, errors, limits = sources.data("mq9"), sources.data("errors"), sources.data("limits")
        headers, client = sources.data("headers"), sources.data("client")
        self._limits = tuple(
            Limit(name, words(name), d["value"], d["unit"], d.get("configurable", False), prose(d.get("doc")))
            for name, d in limits.items()
        )
        self._codes = tuple(
            ErrorCode(
                name, words(name), d["text"], tuple(re.findall(r"\{(\w+)\}", d["text"])), prose(d.get("doc"))
            )
            for name, d in errors["codes"].items()
        )
        self._retry = tuple(
            RetryClass(name, tuple(d["retries_on"]), d.get("needs", ""), prose(d.get("doc")))
            for name, d in top["retry_classes"].items()
        )
        prefix = headers["prefix"]
        self._headers = tuple(self._header(name, d, prefix) for name, d in headers["sent"].items())
        operations = tuple(self._operation(d) for _, d in sorted(sources.operations().items()))
        requirements = [
            *(
                self._requirement(rid, d)
                for part in (client, sources.data("requirements"))
                for rid, d in part.get("requirements", {}).items()
            ),
            *(requirement for operation in operations for requirement in operation.requirements),
        ]
        return Spec(
            protocol=top["protocol"],
            version=top["version"],
            hash=self.content_hash(),
            title=top["title"],
            doc=prose(top.get("doc")),
            subject_prefix=top["subject_prefix"],
            default_port=top["default_port"],
            licence=top["licence"],
            check_order=tuple(top["check_order"]),
            retry_classes=self._retry,
            scalars=tuple(
                Scalar(name, words(name), self.type(name), prose(d.get("doc")))
                for name, d in self._types.get("scalars", {}).items()
            ),
            enums=tuple(self._enum(name, d) for name, d in self._types.get("enums", {}).items()),
            objects=tuple(self._object(name, d) for name, d in self._types.get("objects", {}).items()),
            header_prefix=prefix,
            headers=self._headers,
            dead_letter_headers=tuple(
                self._header(name, d, prefix) for name, d in headers["dead_letter"].items()
            ),
            codes=self._codes,
            classify=tuple(
                Classify(d.get("prefix", ""), d.get("suffix", ""), d["code"], d.get("source", ""))
                for d in errors["classify"]
            ),
            kinds=tuple(
                ErrorKind(name, words(name), prose(d.get("doc"))) for name, d in errors["kinds"].items()
            ),
            limits=self._limits,
            client=self._client(client),
            operations=operations,
            requirements=tuple(sorted(requirements, key=lambda requirement: requirement.id)),
            vectors=tuple(vector for operation in operations for vector in operation.vectors),
        )

    def content_hash(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the content, whatever its formatting."""
        content = {name: document.data for name, document in sorted(self._sources.documents.items())}
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]

    def type(self, text: str) -> Type:
        """The type that a text such as `list<msg_id>` names."""
        if text.startswith("list<"):
            return Type(text, "list", "list", "list", item=self.type(text[5:-1]))
        if text in CLIENT_BASES:
            return Type(text, "scalar", text, text)
        for section, kind in (("enums", "enum"), ("objects", "object")):
            if text in self._types.get(section, {}):
                return Type(text, kind, text, kind, doc=prose(self._types[section][text].get("doc")))
        data = self._types["scalars"][text]
        return Type(
            text,
            "scalar",
            text,
            data["base"],
            unit=data.get("unit", ""),
            bounds=bounds_of(data),
            error=data.get("error", "invalid_argument"),
            doc=prose(data.get("doc")),
        )

    def _enum(self, name: str, data: Mapping[str, Any]) -> Enum:
        values = tuple(
            EnumValue(value, words(value), prose(d.get("doc")), d.get("requires", ""))
            for value, d in data["values"].items()
        )
        return Enum(
            name, words(name), values, data.get("open", True), data.get("default", ""), prose(data.get("doc"))
        )

    def _object(self, name: str, data: Mapping[str, Any]) -> Object:
        return Object(
            name,
            words(name),
            tuple(self._field(field_name, d) for field_name, d in data["fields"].items()),
            data.get("decode", ""),
            data.get("origin", "public"),
            prose(data.get("doc")),
        )

    def _field(self, name: str, data: Mapping[str, Any]) -> Field:
        return Field(
            name,
            words(name),
            self.type(data["type"]),
            data.get("required", True),
            data.get("odd", "fail"),
            "default" in data,
            data.get("default"),
            data.get("encoding_field", ""),
            data.get("origin", "public"),
            data.get("since", ""),
            prose(data.get("deprecated")),
            prose(data.get("doc")),
        )

    def _header(self, name: str, data: Mapping[str, Any], prefix: str) -> Header:
        return Header(
            name,
            words(name[len(prefix) :]),
            self.type(data["type"]),
            data["encoding"],
            data.get("repeat", "first"),
            data.get("consumed", False),
            data.get("parameter", ""),
            data.get("origin", "public"),
            prose(data.get("doc")),
        )

    def _parameter(self, name: str, data: Mapping[str, Any], positional: int = 0) -> Parameter:
        kind = self.type(data["type"])
        place = data.get("in", "client")
        default = data.get("default", data.get("default_ms"))
        return Parameter(
            name=name,
            words=words(name),
            type=kind,
            place=place,
            path=tuple(data.get("path", name).split("."))
            if place == "body" and not data.get("spread")
            else (),
            header=next((h for h in self._headers if h.name == data.get("header")), None),
            optional=data.get("optional", False),
            has_default="default" in data or "default_ms" in data,
            default=tuple(default) if isinstance(default, list) else default,
            positional=data.get("positional", positional),
            broker_type=data.get("broker_type", ""),
            spread=data.get("spread", False),
            until_first_fetch=data.get("until_first_fetch", False),
            bounds=bounds_of(data, kind.bounds),
            origin=data.get("origin", "public"),
            since=data.get("since", ""),
            deprecated=prose(data.get("deprecated")),
            doc=prose(data.get("doc")),
        )

    def _operation(self, data: Mapping[str, Any]) -> Operation:
        name, constants = data["operation"], data.get("body_constants", {})
        parameters = tuple(self._parameter(key, d) for key, d in data.get("parameters", {}).items())
        by_name = {parameter.name: parameter for parameter in parameters}
        segments = tuple(
            Segment(parameter=by_name[token[1:-1]]) if token.startswith("{") else Segment(token)
            for token in data["subject"].split(".")
        )
        in_body = [p for p in parameters if p.place == "body"]
        body = "json" if in_body or constants else "none"
        reply = tuple(self._field(key, d) for key, d in data["reply"].items())
        result = data.get("result")
        if isinstance(result, str):
            resolved = Result("field", next(f for f in reply if f.name == result))
        elif result:
            resolved = Result("reply", None, result["type"], words(result["type"]))
        else:
            resolved = Result("none")
        return Operation(
            name=name,
            words=words(name),
            group=name.split(".")[0],
            method=data["method"],
            method_words=words(data["method"]),
            summary=prose(data["summary"]),
            doc=prose(data.get("doc")),
            since=data["since"],
            origin=data.get("origin", "public"),
            deprecated=prose(data.get("deprecated")),
            subject=data["subject"],
            segments=segments,
            partition=data["partition"],
            effect=data["effect"],
            retry=next(r for r in self._retry if r.name == data["retry"]),
            timeout_adds=data.get("timeout_adds", ""),
            leases=Leases(**data["leases"]) if "leases" in data else None,
            max_body=next((limit for limit in self._limits if limit.name == data.get("max_body")), None),
            body="payload" if any(p.place == "payload" for p in parameters) else body,
            parameters=parameters,
            body_fields=_body_fields(in_body, constants),
            rules=tuple(_rule(d) for d in data.get("rules", [])),
            reply=reply,
            result=resolved,
            errors=tuple(next(c for c in self._codes if c.name == code) for code in data["errors"]),
            requirements=tuple(
                self._requirement(rid, d, name) for rid, d in data.get("requirements", {}).items()
            ),
            vectors=tuple(_vector(d, name) for d in data.get("vectors", [])),
        )

    def _requirement(self, rid: str, data: Mapping[str, Any], operation: str = "") -> Requirement:
        return Requirement(
            rid, data["level"], data.get("by", ""), prose(data["text"]), operation, self._checks.get(rid, ())
        )

    def _client(self, data: Mapping[str, Any]) -> Client:
        def call(part: Mapping[str, Any]) -> ClientCall:
            positional = tuple(part.get("positional", ()))
            parameters = tuple(
                self._parameter(name, d, positional.index(name) + 1 if name in positional else 0)
                for name, d in part["parameters"].items()
            )
            rest = {
                key: value for key, value in part.items() if key not in ("doc", "parameters", "positional")
            }
            return ClientCall(prose(part.get("doc")), parameters, positional, rest)

        return Client(
            connect=call(data["connect"]),
            consume=call(data["consume"]),
            request=dict(data["request"]),
            retry=dict(data["retry"]),
            agent_keep_alive=dict(data["agent_keep_alive"]),
        )


def _body_fields(parameters: list[Parameter], constants: Mapping[str, str]) -> tuple[BodyField, ...]:
    # Order on the wire: parameters as the spec lists them, constants after the first parameter of the body
    # that is required (where the public clients have them) would be arbitrary; bodies are compared
    # canonically, so they simply come last.
    def build(depth: int, members: list[Parameter]) -> tuple[BodyField, ...]:
        result: list[BodyField] = []
        seen: set[str] = set()
        for parameter in members:
            key = parameter.path[depth]
            if key in seen:
                continue
            seen.add(key)
            if len(parameter.path) == depth + 1:
                result.append(BodyField(key, words(key), parameter))
            else:
                inner = [p for p in members if p.path[depth] == key]
                result.append(BodyField(key, words(key), None, build(depth + 1, inner)))
        return tuple(result)

    fields = build(0, [p for p in parameters if not p.spread])
    return (*fields, *(BodyField(key, words(key), constant=value[1:-1]) for key, value in constants.items()))


def _rule(data: Mapping[str, Any]) -> Rule:
    if "require_any" in data:
        return Rule("require_any", tuple(data["require_any"]), data.get("fails_on", data["require_any"][0]))
    require = data["require"]
    fails_on = data.get("fails_on", require)
    if "when_present" in data:
        return Rule("when_present", (require,), fails_on, data["when_present"])
    ((subject, value),) = data["when"].items()
    return Rule("when", (require,), fails_on, subject, value)


def _vector(data: Mapping[str, Any], operation: str) -> Vector:
    result = data["result"]
    return Vector(
        id=data["id"],
        words=words(data["id"]),
        operation=operation,
        covers=tuple(data.get("covers", ())),
        call=data["call"],
        request=data.get("request"),
        reply=data.get("reply"),
        ok=result.get("ok"),
        error=result.get("error"),
        is_ok="ok" in result,
        attempts=data.get("attempts"),
        odd=data.get("odd", False),
        doc=prose(data.get("doc")),
    )
