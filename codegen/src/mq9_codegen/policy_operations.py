"""Rules for the operations' files: parameters, subjects, results, vectors."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from mq9_codegen.policy import Checker, check_fields
from mq9_codegen.problems import Path as DataPath
from mq9_codegen.problems import shown
from mq9_codegen.source import Document

_PLACE_BASES = {
    "subject": ("string", "integer"),
    "header": ("string", "integer", "enum", "list"),
    "headers": ("header_map_single",),
    "payload": ("bytes",),
    "body": ("string", "integer", "number", "boolean", "enum", "list", "json_object", "object"),
}


def check_operations(checker: Checker) -> None:
    """Checks every operation, and that they don't get in each other's way."""
    methods: dict[str, str] = {}
    subjects: dict[str, str] = {}
    vectors: dict[str, str] = {}
    results: dict[str, str] = {}
    names: list[str] = []
    for file, document in checker.sources.operation_documents():
        data = document.data
        name = data["operation"]
        if name != file:
            checker.add(
                document,
                ("operation",),
                f"operation '{name}' stands in a file of another name",
                f"{name}.yaml",
            )
        names.append(name)
        _once(checker, document, ("method",), "method", data["method"], methods)
        shape = re.sub(r"\{[^}]*\}", "*", data["subject"])
        _once(checker, document, ("subject",), "subject", shape, subjects)
        for index, vector in enumerate(data["vectors"]):
            _once(checker, document, ("vectors", index, "id"), "vector", vector["id"], vectors)
        if isinstance(data.get("result"), dict):
            kind = data["result"]["type"]
            _once(checker, document, ("result", "type"), "result type", kind, results)
            taken = [*checker.types["scalars"], *checker.types["enums"], *checker.types["objects"]]
            if kind in taken:
                checker.add(
                    document, ("result", "type"), f"'{kind}' is a type of types.yaml already", "another name"
                )
        _check_operation(checker, document)
    checker.names(checker.sources.documents["mq9"], (), names)
    checker.names(checker.sources.documents["mq9"], (), methods)


def _once(
    checker: Checker, document: Document, path: DataPath, what: str, name: str, seen: dict[str, str]
) -> None:
    if name in seen:
        checker.add(document, path, f"{what} '{name}' is there already, in {seen[name]}", f"another {what}")
    seen.setdefault(name, f"{document.file}:{document.line(path)}")


def _check_operation(checker: Checker, document: Document) -> None:
    data = document.data
    parameters: Mapping[str, Any] = data.get("parameters", {})
    top = checker.sources.data("mq9")
    if not data["subject"].startswith(top["subject_prefix"]):
        checker.add(
            document,
            ("subject",),
            f"{shown(data['subject'])} is outside the protocol",
            f"a subject below {top['subject_prefix']}",
        )
    in_subject = re.findall(r"\{([^}]*)\}", data["subject"])
    for name in in_subject:
        if (
            checker.known(document, ("subject",), "parameter", name, parameters)
            and parameters[name]["in"] != "subject"
        ):
            checker.add(
                document, ("parameters", name, "in"), f"'{name}' stands in the subject", "in: subject"
            )
        if in_subject.count(name) > 1:
            checker.add(document, ("subject",), f"'{name}' stands in the subject twice", "once")
    if tuple(map(int, data["since"].split("."))) > tuple(map(int, top["version"].split("."))):
        checker.add(
            document,
            ("since",),
            f"{data['since']} is newer than the protocol",
            f"at most {top['version']}, the version of mq9.yaml",
        )
    if data["partition"] != "registry":
        checker.known(document, ("partition",), "partition", data["partition"], [*parameters, "registry"])
    if checker.known(document, ("retry",), "retry class", data["retry"], checker.retry):
        needs = checker.retry[data["retry"]].get("needs")
        if needs and needs not in parameters:
            checker.add(
                document,
                ("retry",),
                f"class '{data['retry']}' needs a parameter '{needs}'",
                "such a parameter, or another class",
            )
    if "timeout_adds" in data and checker.known(
        document, ("timeout_adds",), "parameter", data["timeout_adds"], parameters
    ):
        scalar = checker.types["scalars"].get(parameters[data["timeout_adds"]]["type"], {})
        if scalar.get("unit") != "milliseconds":
            checker.add(
                document,
                ("timeout_adds",),
                f"'{data['timeout_adds']}' is not in milliseconds",
                "a type with unit: milliseconds",
            )
    for key, name in data.get("leases", {}).items():
        checker.known(document, ("leases", key), "parameter", name, parameters)
    if "max_body" in data:
        checker.known(document, ("max_body",), "limit", data["max_body"], checker.limits)
    for index, code in enumerate(data["errors"]):
        checker.known(document, ("errors", index), "error code", code, checker.codes)
    _check_parameters(checker, document, parameters, in_subject)
    _check_body(checker, document, parameters)
    _check_rules(checker, document, parameters)
    check_fields(checker, document, ("reply",), data["reply"])
    if isinstance(data.get("result"), str):
        checker.known(document, ("result",), "field of the reply", data["result"], data["reply"])
    if data["reply"].keys() & {"error", "code"}:
        checker.add(
            document, ("reply",), "has a field that every reply has", "a name other than error and code"
        )
    for index, vector in enumerate(data["vectors"]):
        _check_vector(checker, document, ("vectors", index), vector)


def _check_parameters(
    checker: Checker, document: Document, parameters: Mapping[str, Any], in_subject: list[str]
) -> None:
    checker.names(document, ("parameters",), parameters)
    positions: dict[int, str] = {}
    for name, data in parameters.items():
        path: DataPath = ("parameters", name)
        place = data["in"]
        if place == "subject" and name not in in_subject:
            checker.add(
                document, (*path, "in"), f"'{name}' is not in the subject", f"{{{name}}} in the subject"
            )
        if place == "subject" and data.get("optional"):
            checker.add(document, (*path, "optional"), f"'{name}' is in the subject, so it can't be left out")
        if "path" in data and place != "body":
            checker.add(document, (*path, "path"), f"'{name}' has a path, but is not in the body", "in: body")
        if data.get("spread") and (place != "body" or "path" in data):
            checker.add(
                document,
                (*path, "spread"),
                f"'{name}' is spread, but has a place of its own",
                "in: body without path",
            )
        if ("header" in data) != (place == "header"):
            checker.add(document, path, f"'{name}': `header` and `in: header` belong together")
        if "default" in data and not data.get("optional"):
            checker.add(
                document, (*path, "default"), f"'{name}' has a default, but must be given", "optional: true"
            )
        if "positional" in data:
            other = positions.setdefault(data["positional"], name)
            if other != name:
                checker.add(
                    document,
                    (*path, "positional"),
                    f"'{name}' has the position of '{other}'",
                    "another number",
                )
        if "broker_type" in data and data["broker_type"] != "any":
            checker.known(
                document,
                (*path, "broker_type"),
                "type",
                data["broker_type"],
                ["any", *checker.types["scalars"]],
            )
        if not checker.type_is_known(document, (*path, "type"), data["type"]):
            continue
        base = checker.base(data["type"])
        if place in _PLACE_BASES and base not in _PLACE_BASES[place]:
            checker.add(
                document,
                (*path, "type"),
                f"type {data['type']} can't travel in the {place}",
                "a type with base " + ", ".join(_PLACE_BASES[place]),
            )
        if data.get("spread") and base != "json_object":
            checker.add(
                document,
                (*path, "spread"),
                f"'{name}' is spread, but of type {data['type']}",
                "a type with base json_object",
            )
        bounds = checker.bounds(document, path, data, data["type"])
        if "default" in data:
            checker.value(document, (*path, "default"), data["default"], data["type"], bounds)
        if "header" in data and checker.known(
            document, (*path, "header"), "header", data["header"], checker.headers
        ):
            header = checker.headers[data["header"]]
            if header["type"] != data["type"]:
                checker.add(
                    document, (*path, "type"), f"'{name}' has another type than its header", header["type"]
                )
        if base == "enum":
            for value, entry in checker.types["enums"][data["type"]]["values"].items():
                if entry.get("requires") and entry["requires"] not in parameters:
                    checker.add(
                        document,
                        (*path, "type"),
                        f"{data['type']} '{value}' requires a parameter '{entry['requires']}'",
                    )
    for number, position in enumerate(sorted(positions), start=1):
        if position != number:
            checker.add(
                document,
                ("parameters", positions[position], "positional"),
                f"position {number} is missing",
                "1, 2, 3, … without a gap",
            )
            break
    ordered = [parameters[positions[position]] for position in sorted(positions)]
    for before, after in pairwise(ordered):
        if before.get("optional") and not after.get("optional"):
            checker.add(
                document, ("parameters",), "a position that may be left out comes before one that may not"
            )


def _check_body(checker: Checker, document: Document, parameters: Mapping[str, Any]) -> None:
    payloads = [name for name, data in parameters.items() if data["in"] == "payload"]
    paths = {
        name: tuple(data.get("path", name).split("."))
        for name, data in parameters.items()
        if data["in"] == "body" and not data.get("spread")
    }
    if len(payloads) > 1:
        checker.add(document, ("parameters", payloads[1]), f"'{payloads[1]}' is a second payload", "one")
    if payloads and (paths or document.data.get("body_constants")):
        checker.add(
            document,
            ("parameters", payloads[0]),
            "the body is the payload, so nothing else can be in it",
            "headers",
        )
    for name, path in paths.items():
        for other, longer in paths.items():
            if name != other and longer[: len(path)] == path and (len(longer) > len(path) or name < other):
                checker.add(
                    document,
                    ("parameters", other),
                    f"'{other}' stands at the place of '{name}' in the body",
                    "another path",
                )
    for key, value in document.data.get("body_constants", {}).items():
        checker.known(document, ("body_constants", key), "parameter", value[1:-1], parameters)
        if any(path[0] == key for path in paths.values()):
            checker.add(
                document, ("body_constants", key), f"'{key}' is a parameter of the body too", "one of both"
            )


def _check_rules(checker: Checker, document: Document, parameters: Mapping[str, Any]) -> None:
    for index, rule in enumerate(document.data.get("rules", ())):
        path: DataPath = ("rules", index)
        for number, name in enumerate(rule.get("require_any", ())):
            checker.known(document, (*path, "require_any", number), "parameter", name, parameters)
        for key in ("require", "when_present", "fails_on"):
            if key in rule:
                checker.known(document, (*path, key), "parameter", rule[key], parameters)
        for name, value in rule.get("when", {}).items():
            place = (*path, "when", name)
            if checker.known(document, place, "parameter", name, parameters) and checker.type_is_known(
                document, place, parameters[name]["type"]
            ):
                checker.value(document, place, value, parameters[name]["type"], {})


def _check_vector(checker: Checker, document: Document, path: DataPath, vector: Mapping[str, Any]) -> None:
    data = document.data
    parameters: Mapping[str, Any] = data.get("parameters", {})
    call, request, result = vector["call"], vector.get("request"), vector["result"]
    for name in call:
        checker.known(document, (*path, "call", name), "parameter", name, parameters)
    for name, parameter in parameters.items():
        if request is not None and name not in call and not parameter.get("optional"):
            checker.add(
                document, (*path, "call"), f"the call leaves out '{name}', which must be given", f"'{name}'"
            )
        if parameter["in"] == "payload" and name in call:
            _check_payload(checker, document, (*path, "call", name), call[name])
    if request is None:
        if "error" not in result:
            checker.add(
                document,
                path,
                "nothing is sent, so nothing can succeed",
                "`request`, or a result with `error`",
            )
        if "reply" in vector:
            checker.add(document, (*path, "reply"), "nothing is sent, so nothing is answered", "`request`")
    else:
        if "reply" not in vector:
            checker.add(document, path, "a request is sent, but nothing says what is answered", "`reply`")
        _check_request(checker, document, (*path, "request"), request, call)
    error = result.get("error")
    if error:
        if checker.known(
            document, (*path, "result", "error", "kind"), "kind of failure", error["kind"], checker.kinds
        ):
            pass
        if error.get("field") and error["field"] not in parameters and error["field"] != "body":
            checker.known(
                document, (*path, "result", "error", "field"), "parameter", error["field"], parameters
            )


def _check_request(
    checker: Checker, document: Document, path: DataPath, request: Mapping[str, Any], call: Mapping[str, Any]
) -> None:
    data = document.data
    parameters: Mapping[str, Any] = data.get("parameters", {})
    subject = re.sub(
        r"\{([^}]*)\}", lambda match: str(call.get(match.group(1), match.group(0))), data["subject"]
    )
    if request["subject"] != subject:
        checker.add(
            document,
            (*path, "subject"),
            f"{shown(request['subject'])} is not the subject of this call",
            subject,
        )
    forms = [key for key in ("json", "payload", "empty") if key in request]
    if len(forms) != 1:
        checker.add(
            document, path, "has " + (" and ".join(forms) or "no body"), "one of json, payload and empty"
        )
        return
    if any(parameter["in"] == "payload" for parameter in parameters.values()):
        want = "payload"
    elif any(parameter["in"] == "body" for parameter in parameters.values()) or data.get("body_constants"):
        want = "json"
    else:
        want = "empty"
    if forms[0] != want:
        checker.add(
            document, (*path, forms[0]), f"is not what the body of {data['operation']} is", f"'{want}'"
        )
    elif want == "payload":
        _check_payload(checker, document, (*path, "payload"), request["payload"])


def _check_payload(checker: Checker, document: Document, path: DataPath, value: Any) -> None:
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= {"text", "base64", "json"}:
        checker.add(document, path, f"{shown(value)} is not a payload", "{text: …}, {base64: …} or {json: …}")
        return
    ((form, content),) = value.items()
    if form != "json" and not isinstance(content, str):
        checker.add(document, (*path, form), f"{shown(content)} is not text", "text")
    elif form == "base64":
        try:
            base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            checker.add(
                document, (*path, form), f"{shown(content)} is not base64", "RFC 4648 base64 with padding"
            )
