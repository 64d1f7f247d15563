"""Rules that a JSON Schema can't state: references, bounds, names, coverage.

Everything but operations, which have a module of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mq9_codegen.comments import paragraphs
from mq9_codegen.load import Sources, shown_path
from mq9_codegen.problems import Path as DataPath
from mq9_codegen.problems import Problem, nearest, shown
from mq9_codegen.resolve import CLIENT_BASES
from mq9_codegen.source import Document, load_document

_PAIRS = (
    ("min", "max"),
    ("min_length", "max_length"),
    ("min_bytes", "max_bytes"),
    ("min_items", "max_items"),
)
_SUITS = {
    "min": ("integer", "number"),
    "max": ("integer", "number"),
    "min_length": ("string",),
    "max_length": ("string",),
    "min_bytes": ("string", "bytes"),
    "max_bytes": ("string", "bytes"),
    "min_items": ("list",),
    "max_items": ("list",),
    "chars": ("string",),
    "first": ("string",),
    "last": ("string",),
    "forbid": ("string",),
    "text": ("string",),
}
_DATA = ("call", "request", "reply", "result")
"""Keys of vectors below which everything is data, whatever it is called."""
DEFAULT_ERROR = "invalid_argument"
"""The code of a value that breaks its bounds, unless its type names another."""
MAX_NAME = 60
"""Longest name, in characters; templates are tested up to here."""


class Checker:
    """What all rules share: the sources, the problems, and how references are looked up."""

    def __init__(self, sources: Sources, problems: list[Problem]) -> None:
        self.sources = sources
        self.problems = problems
        self.types = sources.data("types")
        self.codes: Mapping[str, Any] = sources.data("errors")["codes"]
        self.kinds: Mapping[str, Any] = sources.data("errors")["kinds"]
        self.limits = sources.data("limits")
        self.headers: Mapping[str, Any] = sources.data("headers")["sent"]
        self.retry: Mapping[str, Any] = sources.data("mq9")["retry_classes"]

    def add(self, document: Document, path: DataPath, message: str, expected: str = "") -> None:
        """Notes a problem."""
        self.problems.append(document.problem(path, message, expected))

    def known(self, document: Document, path: DataPath, what: str, name: Any, known: Iterable[str]) -> bool:
        """Whether `name` is known; if not, that is a problem."""
        names = list(known)
        if name in names:
            return True
        listed = ", ".join(names) if len(names) <= 25 else f"{', '.join(names[:25])}, …"
        self.add(
            document,
            path,
            f"unknown {what} {shown(name)}{nearest(str(name), names)}",
            f"one of {listed}" if names else "",
        )
        return False

    def base(self, text: str) -> str:
        """The base of a known type: of a scalar its own, else `enum`, `object` or `list`."""
        if text.startswith("list<"):
            return "list"
        for section, kind in (("enums", "enum"), ("objects", "object")):
            if text in self.types[section]:
                return kind
        return str(self.types["scalars"].get(text, {"base": text})["base"])

    def type_is_known(self, document: Document, path: DataPath, text: str, client: bool = False) -> bool:
        """Whether a type exists; if not, that is a problem."""
        inner = text[5:-1] if text.startswith("list<") else text
        if text.startswith("list<") != text.endswith(">"):
            self.add(document, path, f"{shown(text)} is not a type", "a name or list<name>")
            return False
        names = [*self.types["scalars"], *self.types["enums"], *self.types["objects"]]
        return self.known(document, path, "type", inner, [*names, *(CLIENT_BASES if client else ())])

    def bounds(
        self, document: Document, path: DataPath, data: Mapping[str, Any], type_text: str
    ) -> dict[str, Any]:
        """Checks bounds that stand with a parameter or scalar; gives all that count, the type's included."""
        base = self.base(type_text)
        inherited = self.types["scalars"].get(type_text, {})
        for key, bases in _SUITS.items():
            if key in data and data is not inherited and base not in bases:
                self.add(
                    document, (*path, key), f"'{key}' does not suit the type {type_text}", " or ".join(bases)
                )
            if key in data and data is inherited and data["base"] not in bases:
                self.add(
                    document,
                    (*path, key),
                    f"'{key}' does not suit the base {data['base']}",
                    " or ".join(bases),
                )
        merged = {**inherited, **{key: data[key] for key in _SUITS if key in data}}
        for low, high in _PAIRS:
            for key in (low, high):
                if data is inherited or key not in data or key not in inherited:
                    continue
                wider = data[key] < inherited[key] if key == low else data[key] > inherited[key]
                if wider:
                    self.add(
                        document,
                        (*path, key),
                        f"'{key}' {data[key]} is wider than {inherited[key]} of {type_text}",
                        "a narrower bound",
                    )
            if (
                low in merged
                and high in merged
                and merged[low] > merged[high]
                and (low in data or high in data)
            ):
                key = low if low in data else high
                self.add(document, (*path, key), f"'{low}' {merged[low]} is above '{high}' {merged[high]}")
        return merged

    def value(
        self, document: Document, path: DataPath, value: Any, type_text: str, bounds: Mapping[str, Any]
    ) -> None:
        """Checks that a default (or a condition's value) is of a type and inside its bounds."""
        base = self.base(type_text)
        wanted: dict[str, tuple[tuple[type[Any], ...], str]] = {
            "integer": ((int,), "a whole number"),
            "number": ((int, float), "a number"),
            "boolean": ((bool,), "true or false"),
            "string": ((str,), "text"),
            "bytes": ((str,), "text"),
            "enum": ((str,), "text"),
            "list": ((list,), "a list"),
        }
        kinds, name = wanted.get(base, ((), "no default at all"))
        if not isinstance(value, kinds) or (isinstance(value, bool) and base != "boolean"):
            self.add(document, path, f"{shown(value)} is not a value of type {type_text}", name)
            return
        if base == "enum":
            self.known(
                document, path, f"value of {type_text}", value, self.types["enums"][type_text]["values"]
            )
            return
        size = value
        pairs = [("min", "max")]
        if base == "string":
            for measure, pair in (
                (len(value), ("min_length", "max_length")),
                (len(value.encode("utf-8", "replace")), ("min_bytes", "max_bytes")),
            ):
                self._inside(document, path, value, measure, pair, bounds)
            return
        if base == "list":
            size, pairs = len(value), [("min_items", "max_items")]
        if base in ("integer", "number", "list"):
            for pair in pairs:
                self._inside(document, path, value, size, pair, bounds)

    def _inside(
        self,
        document: Document,
        path: DataPath,
        value: Any,
        size: Any,
        pair: tuple[str, str],
        bounds: Mapping[str, Any],
    ) -> None:
        low, high = bounds.get(pair[0]), bounds.get(pair[1])
        # An empty text as a default means "nothing", which a lower bound on its length does not forbid.
        if low is not None and size < low and value != "":
            self.add(document, path, f"default {shown(value)} is out of bounds", f"{pair[0]} {low}")
        if high is not None and size > high:
            self.add(document, path, f"default {shown(value)} is out of bounds", f"{pair[1]} {high}")

    def names(self, document: Document, path: DataPath, names: Iterable[str]) -> None:
        """Names of one scope: not too long, and different in every casing of every language."""
        seen: dict[str, str] = {}
        for name in names:
            if len(name) > MAX_NAME:
                self.add(
                    document,
                    (*path, name),
                    f"the name '{name[:30]}…' has {len(name)} characters",
                    f"at most {MAX_NAME}",
                )
            flat = re.sub(r"[^a-z0-9]", "", name.lower())
            if seen.setdefault(flat, name) != name:
                self.add(
                    document,
                    (*path, name),
                    f"'{name}' and '{seen[flat]}' are the same name in some languages",
                )

    def sentence(self, document: Document, path: DataPath, text: str, one_line: bool = False) -> None:
        """Prose begins and ends as sentences do, so that it can stand as documentation anywhere."""
        stops = (".", "!", "?")
        parts = paragraphs(text)
        if not parts:
            self.add(document, path, "is blank", "a sentence")
        elif not parts[-1].endswith(stops):
            self.add(document, path, f"'{path[-1]}' does not end as a sentence", "a full stop at its end")
        elif not parts[0].endswith(stops):
            self.add(
                document,
                path,
                f"'{path[-1]}' does not begin with a sentence",
                "a full stop before the first list",
            )
        if one_line and "\n" in text.strip():
            self.add(document, path, f"'{path[-1]}' has several lines", "one line")

    def docs(self, document: Document, value: Any, path: DataPath = ()) -> None:
        """Checks all prose in a document, whatever it documents."""
        if isinstance(value, list):
            for index, item in enumerate(value):
                self.docs(document, item, (*path, index))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if key in _DATA:
                    continue
                if key in ("doc", "summary", "deprecated") and isinstance(item, str):
                    self.sentence(document, (*path, key), item, one_line=key == "summary")
                else:
                    self.docs(document, item, (*path, key))


def check_policy(sources: Sources, problems: list[Problem]) -> None:
    """Finds references to nothing, defaults out of bounds, duplicates and wrong names, all at once."""
    from mq9_codegen.policy_operations import check_operations  # noqa: PLC0415 - it imports this module

    checker = Checker(sources, problems)
    for document in sources.documents.values():
        for key, value in document.data.items():
            # The reply of an operation is prose too, that of a vector is data.
            checker.docs(
                document, value if key == "reply" else {key: value}, (key,) if key == "reply" else ()
            )
    _check_types(checker)
    _check_headers(checker)
    _check_errors(checker)
    _check_top(checker)
    _check_client(checker)
    _check_requirement_ids(checker)
    check_operations(checker)


def _check_types(checker: Checker) -> None:
    document = checker.sources.documents["types"]
    seen: dict[str, str] = dict.fromkeys((*CLIENT_BASES, "list"), "the generator")
    for section in ("scalars", "enums", "objects"):
        for name in checker.types[section]:
            if name in seen:
                checker.add(
                    document, (section, name), f"'{name}' is a type of {seen[name]} already", "another name"
                )
            seen.setdefault(name, section)
    checker.names(document, ("scalars",), checker.types["scalars"])
    checker.names(document, ("enums",), checker.types["enums"])
    checker.names(document, ("objects",), checker.types["objects"])
    for name, data in checker.types["scalars"].items():
        path: DataPath = ("scalars", name)
        checker.bounds(document, path, data, name)
        if "error" in data:
            checker.known(document, (*path, "error"), "error code", data["error"], checker.codes)
        for key in ("chars", "first", "last"):
            if key in data:
                try:
                    re.compile(f"[{data[key]}]")
                except (re.error, ValueError, OverflowError):
                    checker.add(
                        document,
                        (*path, key),
                        f"{shown(data[key])} is no set of characters",
                        "the inside of [...], such as a-z0-9",
                    )
    for name, data in checker.types["enums"].items():
        if "default" in data:
            checker.known(
                document, ("enums", name, "default"), f"value of {name}", data["default"], data["values"]
            )
        checker.names(document, ("enums", name, "values"), data["values"])
    for name, data in checker.types["objects"].items():
        check_fields(checker, document, ("objects", name, "fields"), data["fields"])


def check_fields(checker: Checker, document: Document, path: DataPath, fields: Mapping[str, Any]) -> None:
    """Checks the fields of an object or reply."""
    checker.names(document, path, fields)
    for name, data in fields.items():
        place = (*path, name)
        if not checker.type_is_known(document, (*place, "type"), data["type"]):
            continue
        if "default" in data:
            checker.value(
                document,
                (*place, "default"),
                data["default"],
                data["type"],
                checker.bounds(document, place, {}, data["type"]),
            )
            if data.get("required", True):
                checker.add(
                    document, place, f"'{name}' has a default, but is always there", "required: false"
                )
        if "encoding_field" in data:
            checker.known(document, (*place, "encoding_field"), "field", data["encoding_field"], fields)
            if checker.base(data["type"]) != "bytes":
                checker.add(
                    document,
                    (*place, "encoding_field"),
                    f"'{name}' has an encoding, but is no payload",
                    "a type with base bytes",
                )


def _check_headers(checker: Checker) -> None:
    document = checker.sources.documents["headers"]
    data = document.data
    forms = {"text": ("string", "enum"), "integer": ("integer",), "comma_separated": ("list",)}
    for section in ("sent", "dead_letter"):
        checker.names(document, (section,), data[section])
        for name, header in data[section].items():
            path: DataPath = (section, name)
            if not name.startswith(data["prefix"]) or name == data["prefix"]:
                checker.add(document, path, f"header '{name}' does not start with the prefix", data["prefix"])
            if not checker.type_is_known(document, (*path, "type"), header["type"]):
                continue
            base = checker.base(header["type"])
            if base not in forms[header["encoding"]]:
                fits = next((form for form, bases in forms.items() if base in bases), "another type")
                checker.add(
                    document,
                    (*path, "encoding"),
                    f"'{header['encoding']}' does not suit the type {header['type']}",
                    fits,
                )
            users = [
                name_
                for _, operation in checker.sources.operation_documents()
                for name_, parameter in operation.data.get("parameters", {}).items()
                if parameter.get("header") == name
            ]
            if section == "sent" and header["parameter"] not in users:
                checker.add(
                    document,
                    (*path, "parameter"),
                    f"no operation has a parameter '{header['parameter']}' with header {name}",
                )
    for name in set(data["sent"]) & set(data["dead_letter"]):
        checker.add(
            document, ("dead_letter", name), f"header '{name}' is among those sent too", "one of both"
        )


def _check_errors(checker: Checker) -> None:
    document = checker.sources.documents["errors"]
    checker.names(document, ("codes",), checker.codes)
    checker.names(document, ("kinds",), checker.kinds)
    if DEFAULT_ERROR not in checker.codes:
        checker.add(
            document, ("codes",), f"has no code '{DEFAULT_ERROR}'", "it, for values that break their bounds"
        )
    for index, entry in enumerate(document.data["classify"]):
        checker.known(document, ("classify", index, "code"), "error code", entry["code"], checker.codes)
    for name, code in checker.codes.items():
        if len(re.findall(r"[{}]", re.sub(r"\{[a-z][a-z0-9_]*\}", "", code["text"]))):
            checker.add(
                document,
                ("codes", name, "text"),
                "has braces that are no {argument}",
                "{name} with a name in snake_case",
            )


def _check_top(checker: Checker) -> None:
    document = checker.sources.documents["mq9"]
    for name, data in checker.retry.items():
        for index, kind in enumerate(data["retries_on"]):
            checker.known(
                document,
                ("retry_classes", name, "retries_on", index),
                "kind or code of failure",
                kind,
                [*checker.kinds, *checker.codes],
            )


def _check_client(checker: Checker) -> None:
    document = checker.sources.documents["client"]
    for call in ("connect", "consume"):
        parameters = document.data[call]["parameters"]
        checker.names(document, (call, "parameters"), parameters)
        for name, data in parameters.items():
            path: DataPath = (call, "parameters", name)
            if not checker.type_is_known(document, (*path, "type"), data["type"], client=True):
                continue
            bounds = checker.bounds(document, path, data, data["type"])
            if "default" in data:
                checker.value(document, (*path, "default"), data["default"], data["type"], bounds)
            if "default_ms" in data and data["type"] != "duration":
                checker.add(document, (*path, "default_ms"), f"'{name}' is no duration", "default")
        for index, name in enumerate(document.data[call].get("positional", [])):
            checker.known(document, (call, "positional", index), "parameter", name, parameters)


def _requirement_places(sources: Sources) -> Iterable[tuple[Document, str]]:
    for name in ("requirements", "client"):
        document = sources.documents[name]
        for rid in document.data["requirements"]:
            yield document, rid
    for _, document in sources.operation_documents():
        for rid in document.data.get("requirements", {}):
            yield document, rid


def _check_requirement_ids(checker: Checker) -> None:
    seen: dict[str, str] = {}
    for document, rid in _requirement_places(checker.sources):
        path: DataPath = ("requirements", rid)
        if rid in seen:
            checker.add(
                document, path, f"requirement {rid} is there already, in {seen[rid]}", "another number"
            )
        seen.setdefault(rid, f"{document.file}:{document.line(path)}")
        checker.sentence(document, (*path, "text"), document.data["requirements"][rid]["text"], one_line=True)
    for _, document in checker.sources.operation_documents():
        for index, vector in enumerate(document.data["vectors"]):
            for number, rid in enumerate(vector.get("covers", ())):
                checker.known(document, ("vectors", index, "covers", number), "requirement", rid, seen)


def check_requirements(sources: Sources, problems: list[Problem]) -> dict[str, tuple[str, ...]]:
    """Collects what covers each requirement.

    Args:
        sources: The specification.
        problems: Takes every MUST that nothing covers, and every unknown id or mistake in the scenario files.

    Returns:
        The vectors (`vector <id>`) and scenarios that cover each requirement.
    """
    requirements: dict[str, tuple[Document, str]] = {}
    for document, rid in _requirement_places(sources):
        requirements.setdefault(rid, (document, document.data["requirements"][rid]["level"]))
    checks: dict[str, list[str]] = {rid: [] for rid in requirements}
    for _, document in sources.operation_documents():
        for vector in document.data["vectors"]:
            for rid in vector.get("covers", ()):
                checks[rid].append(f"vector {vector['id']}")
    for document in _scenario_files(sources, problems):
        for index, scenario in enumerate(document.data):
            if not isinstance(scenario, dict):
                continue
            covers = scenario.get("covers", [])
            for number, rid in enumerate(covers if isinstance(covers, list) else []):
                if rid in checks:
                    checks[rid].append(str(scenario.get("scenario", document.file)))
                else:
                    hint = nearest(str(rid), checks)
                    problems.append(
                        document.problem(
                            (index, "covers", number),
                            f"unknown requirement {shown(rid)}{hint}",
                            "an id of the spec",
                        )
                    )
    for rid, names in checks.items():
        document, level = requirements[rid]
        if level == "MUST" and not names:
            place = document.problem(
                ("requirements", rid), f"nothing checks {rid}", "a vector or scenario whose `covers` names it"
            )
            problems.append(place)
    return {rid: tuple(names) for rid, names in checks.items()}


def _scenario_files(sources: Sources, problems: list[Problem]) -> Iterable[Document]:
    document = sources.documents["mq9"]
    for index, name in enumerate(document.data.get("checks", ())):
        folder: Path = sources.root / name
        if not folder.is_dir():
            problems.append(
                document.problem(("checks", index), f"there is no folder '{name}'", "a folder with scenarios")
            )
            continue
        for path in sorted(folder.rglob("*.yaml")):
            scenarios = load_document(path, shown_path(path), problems)
            if scenarios is None:
                continue
            if isinstance(scenarios.data, list):
                yield scenarios
            else:
                problems.append(scenarios.problem((), "is not a list of scenarios", "a list"))
