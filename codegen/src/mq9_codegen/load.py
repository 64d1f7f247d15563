"""Reads a specification folder: which files there are, and what their JSON Schemas say about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema_rs

from mq9_codegen.problems import Path as DataPath
from mq9_codegen.problems import Problem, nearest, shown
from mq9_codegen.source import Document, load_document
from mq9_codegen.vectors import expand_vectors, join

FILES = ("mq9", "types", "headers", "errors", "limits", "client", "requirements")
"""The files that a specification has, besides one per operation."""

_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
}
_NAMES |= {"boolean": "true or false", "null": "null"}


@dataclass
class Sources:
    """All files of one specification, as read.

    Attributes:
        root: The folder.
        documents: By name: `mq9`, `types`, ..., and `operations/<file>` for each operation.
    """

    root: Path
    documents: dict[str, Document] = field(default_factory=dict)

    def data(self, name: str) -> Mapping[str, Any]:
        """The content of one file."""
        content: Mapping[str, Any] = self.documents[name].data
        return content

    def operations(self) -> dict[str, Mapping[str, Any]]:
        """The content of every operation's file, by the operation's name."""
        return {document.data["operation"]: document.data for _, document in self.operation_documents()}

    def operation_documents(self) -> Iterator[tuple[str, Document]]:
        """Every operation's file, with its name, in a stable order."""
        for name, document in sorted(self.documents.items()):
            if name.startswith("operations/"):
                yield name.removeprefix("operations/"), document


def shown_path(path: Path) -> str:
    """A path as messages show it: relative to the working directory where that is shorter."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def load(root: Path, problems: list[Problem]) -> Sources:
    """Reads a specification and validates every file against its schema.

    Args:
        root: The folder of the specification.
        problems: Takes every mistake that is found.
    """
    sources = Sources(root)
    if not root.is_dir():
        problems.append(Problem(shown_path(root), 0, "is not a folder", "the folder of a specification"))
        return sources
    schemas = _schemas(root / "schema", problems)
    paths = {name: root / f"{name}.yaml" for name in FILES}
    for path in sorted((root / "operations").glob("*.yaml")):
        paths[f"operations/{path.stem}"] = path
    for path in sorted([*root.glob("*.y*ml"), *(root / "operations").glob("*.y*ml")]):
        if path not in paths.values():
            hint = nearest(path.name, [f"{name}.yaml" for name in FILES])
            problems.append(
                Problem(
                    shown_path(path),
                    0,
                    f"is not a file of a specification{hint}",
                    "one of the files in README.md",
                )
            )
    if len(paths) == len(FILES):
        problems.append(
            Problem(shown_path(root / "operations"), 0, "has no operations", "one YAML file an operation")
        )
    for name, path in paths.items():
        document = load_document(path, shown_path(path), problems)
        if document is None:
            continue
        schema = "operation" if name.startswith("operations/") else name
        expand_vectors(document, problems)
        if schema in schemas and not _validate(document, schemas[schema], problems):
            continue
        sources.documents[name] = document
    _read_vectors(sources, schemas.get("vectors"), problems)
    return sources


def _read_vectors(sources: Sources, validator: Validator | None, problems: list[Problem]) -> None:
    """Adds the vectors that stand in files of their own to the operations they belong to."""
    names = {document.data["operation"]: name for name, document in sources.operation_documents()}
    for path in sorted((sources.root / "vectors").glob("*.y*ml")):
        document = load_document(path, shown_path(path), problems)
        if document is None:
            continue
        expand_vectors(document, problems)
        if validator is None:
            folder = sources.root / "schema"
            problems.append(Problem(shown_path(folder / "vectors.schema.json"), 0, "is missing"))
            return
        if not _validate(document, validator, problems):
            continue
        operation = document.data["operation"]
        if operation not in names:
            message = f"unknown operation {shown(operation)}{nearest(operation, names)}"
            problems.append(document.problem(("operation",), message, "an operation that has a file"))
        elif path.name != f"{operation}.yaml":
            problems.append(
                document.problem(("operation",), f"is {shown(operation)}", f"the file name {operation}.yaml")
            )
        else:
            key = f"operations/{names[operation]}"
            sources.documents[key] = join(sources.documents[key], document)


def _schemas(folder: Path, problems: list[Problem]) -> dict[str, Validator]:
    contents: dict[str, Any] = {}
    for path in sorted(folder.glob("*.schema.json")):
        try:
            contents[path.name] = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            problems.append(Problem(shown_path(path), 0, f"is not a JSON Schema: {error}"))
            continue
        try:
            jsonschema_rs.meta.validate(contents[path.name])
        except (ValueError, jsonschema_rs.ValidationError) as error:
            problems.append(
                Problem(shown_path(path), 0, f"is not a JSON Schema: {str(error).splitlines()[0]}")
            )
    if problems:
        return {}
    result: dict[str, Validator] = {}
    for name in (*FILES, "operation"):
        file = f"{name}.schema.json"
        if file in contents:
            result[name] = Validator(contents[file], contents)
        else:
            problems.append(Problem(shown_path(folder / file), 0, "is missing"))
    if "vectors.schema.json" in contents:
        result["vectors"] = Validator(contents["vectors.schema.json"], contents)
    return result


class Validator:
    """A JSON Schema, twice: jsonschema-rs says fast whether all is well, jsonschema explains what is not."""

    def __init__(self, schema: Any, others: Mapping[str, Any] | None = None) -> None:
        """Takes a schema, and those that it may refer to, by the names in its references."""
        self._schema, self._others = schema, others or {}
        registry = jsonschema_rs.Registry([(f"json-schema:///{n}", s) for n, s in self._others.items()])
        self._fast = jsonschema_rs.Draft202012Validator(schema, registry=registry)

    def iter_errors(self, data: Any) -> Iterator[Any]:
        """The violations, as jsonschema gives them."""
        if self._accepts(data):
            return
        # They cost 0.2 s that only a mistake has to pay.
        from jsonschema import Draft202012Validator  # noqa: PLC0415
        from referencing import Registry, Resource  # noqa: PLC0415

        registry: Any = Registry().with_resources(
            [(name, Resource.from_contents(content)) for name, content in self._others.items()]
        )
        yield from Draft202012Validator(self._schema, registry=registry).iter_errors(data)

    def _accepts(self, data: Any) -> bool:
        try:
            return bool(self._fast.is_valid(data))
        except ValueError:  # what it can't take, such as lone surrogates, is for the other one to judge
            return False


def _validate(document: Document, validator: Validator, problems: list[Problem]) -> bool:
    found = [
        problem
        for error in validator.iter_errors(document.data)
        for problem in explain_violation(document, error)
    ]
    problems.extend(found)
    return not found


def explain_violation(document: Document, error: Any) -> Iterator[Problem]:
    """Says in a sentence what a violation of a JSON Schema means."""
    path: DataPath = tuple(error.absolute_path)
    where = f"'{path[-1]}' " if path and isinstance(path[-1], str) else (f"item {path[-1]} " if path else "")
    value, want = error.instance, error.validator_value
    kind = error.validator
    if "propertyNames" in list(error.absolute_schema_path)[-3:]:
        yield document.problem(
            (*path, str(value)), f"key {shown(value)} is not well formed", _expected(error)
        )
    elif kind in ("additionalProperties", "unevaluatedProperties"):
        known = set(error.schema.get("properties", {}))
        for key in sorted(set(value) - known):
            yield document.problem(
                (*path, key),
                f"unknown key '{key}'{nearest(key, known)}",
                "one of " + ", ".join(sorted(known)),
            )
    elif kind == "required":
        missing = [key for key in want if key not in value]
        for key in missing:
            if error.message.startswith(repr(key)):
                yield document.problem(path, f"{where}has no '{key}'", f"the key '{key}'")
    elif kind == "dependentRequired":
        yield document.problem(path, f"{where}lacks a key that belongs to another one ({error.message})")
    elif kind == "type":
        names = [_NAMES[name] for name in ([want] if isinstance(want, str) else want)]
        yield document.problem(path, f"{where}is {shown(value)}", " or ".join(names))
    elif kind in ("oneOf", "anyOf"):
        yield document.problem(
            path, f"{where}is not in one of the possible forms: {shown(value)}", _expected(error)
        )
    else:
        yield document.problem(path, f"{where}is {shown(value)}", _expected(error))


def _expected(error: Any) -> str:
    """What a schema expected, in words; a schema may say so itself by `description` beside a pattern."""
    kind, want, schema = error.validator, error.validator_value, error.schema
    if (
        isinstance(schema, dict)
        and schema.get("description")
        and kind in ("pattern", "oneOf", "anyOf", "not", "enum")
    ):
        return str(schema["description"])
    words: dict[str, Callable[[], str]] = {
        "enum": lambda: "one of " + ", ".join(shown(item).strip("'") for item in want),
        "const": lambda: shown(want),
        "pattern": lambda: f"text that matches {want}",
        "minimum": lambda: f"at least {want}",
        "maximum": lambda: f"at most {want}",
        "minLength": lambda: f"at least {want} characters",
        "maxLength": lambda: f"at most {want} characters",
        "minItems": lambda: f"at least {want} items",
        "maxItems": lambda: f"at most {want} items",
        "uniqueItems": lambda: "no item twice",
        "minProperties": lambda: f"at least {want} keys",
        "maxProperties": lambda: f"at most {want} keys",
    }
    return words[kind]() if kind in words else str(error.message)[:120]
