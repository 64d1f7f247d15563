"""Python models by datamodel-code-generator, from JSON Schemas of the resolved model, in memory.

The schemas here are those of models, not of the wire: what an optional member may be is said once per model
set, prose goes into the class docstring (written by the same comment helper as all other prose), bounds are
left to validators.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mq9_codegen.comments import Block, Section, comment
from mq9_codegen.model import BodyField, Field, Operation, Spec, Type
from mq9_codegen.problems import SpecError
from mq9_codegen.target import Target

_OUTPUTS = {"struct": "msgspec.Struct", "dataclass": "dataclasses.dataclass"}
_BASES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "bytes": {"type": "string", "format": "binary"},
    "json_object": {"type": "object"},
    "header_map": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
    "header_map_single": {"type": "object", "additionalProperties": {"type": "string"}},
    "enum": {"type": "string"},
}
_MODELS = ("objects", "results", "replies", "requests")


@dataclass(frozen=True)
class _Options:
    models: str = "results"
    output: str = "dataclass"
    nullable: bool = False
    base_class: str = ""
    bases: Mapping[str, str] = field(default_factory=dict)
    doc: str = "Models of the protocol."


def render_models(spec: Spec, target: Target, options: Mapping[str, Any]) -> str:
    """Renders models; README.md, "A target", says what the options are.

    Raises:
        SpecError: If an option is unknown.
    """
    known = tuple(_Options.__dataclass_fields__)
    problem = target.document.problem
    for key, value in options.items():
        if key not in known:
            wanted = "one of " + ", ".join(known)
            raise SpecError(
                [problem(("files",), f"unknown option '{key}' of the renderer datamodel", wanted)]
            )
        choices = {"models": _MODELS, "output": tuple(_OUTPUTS)}.get(key)
        if choices and value not in choices:
            raise SpecError(
                [problem(("files",), f"option '{key}' is '{value}'", "one of " + ", ".join(choices))]
            )
    builder = _Builder(spec, target, _Options(**options))
    builder.build()
    body = _generate(
        json.dumps(builder.schema()),
        builder.options.output,
        builder.options.base_class,
        tuple(sorted(builder.aliases.items())),
    )
    for name, text in builder.docs.items():
        # The first indentation is there already.
        body = re.sub(rf'"""\s*{name}\.\s*"""', lambda _, text=text: text.lstrip(), body)  # type: ignore[misc]
    return f"{comment(builder.options.doc, target.comments['doc'], target.layout)}\n\n" + _format(
        body, target.layout.width
    )


class _Builder:
    """Collects one JSON Schema with a definition per model."""

    def __init__(self, spec: Spec, target: Target, options: _Options) -> None:
        self.spec = spec
        self.target = target
        self.options = options
        self.definitions: dict[str, Any] = {}
        self.docs: dict[str, str] = {}
        self.aliases: dict[str, str] = {}

    def schema(self) -> dict[str, Any]:
        """The schema of all models."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": self.definitions}

    def build(self) -> None:
        """Adds all models that are asked for."""
        models = self.options.models
        if models != "requests":
            for item in self.spec.objects:
                self._add(item.name, item.doc, [self._field(field) for field in item.fields])
        for operation in self.spec.operations:
            fields = [self._field(field) for field in operation.reply]
            if models == "results" and operation.result.kind == "reply":
                self._add(operation.result.type_name, f"What `{operation.method}` gives.", fields)
            elif models == "replies":
                self._add(f"{operation.method}_reply", f"A reply of {operation.name}.", fields)
            elif models == "requests" and operation.body == "json":
                doc = f"The body of a request for {operation.name}."
                self._add_body(f"{operation.method}_request", doc, operation.body_fields, operation)

    def _add(self, name: str, doc: str, members: list[tuple[str, dict[str, Any], bool, str]]) -> None:
        title = self.target.name_as("type", name)
        mark = f"Documentation {len(self.docs)}"
        entries = tuple(
            (self.target.name_as("field", member), text or "See the protocol.")
            for member, _, _, text in members
        )
        text: list[Block] = [doc, Section("Attributes", entries)]
        self.docs[mark] = comment(text, self.target.comments["doc"], self.target.layout, 1)
        self.definitions[title] = {
            "type": "object",
            "description": f"{mark}.",
            "properties": {self._name(member): body for member, body, _, _ in members},
            "required": [self._name(member) for member, _, required, _ in members if required],
        }
        if name in self.options.bases:
            self.definitions[title]["customBasePath"] = self.options.bases[name]

    def _name(self, wire: str) -> str:
        """The name of a member; structs keep the wire name here and get the language's as an alias."""
        name = self.target.name_as("field", wire)
        if self.options.output == "dataclass":
            return name
        if name != wire:
            self.aliases[wire] = name
        return wire

    def _add_body(self, name: str, doc: str, members: tuple[BodyField, ...], operation: Operation) -> None:
        result: list[tuple[str, dict[str, Any], bool, str]] = []
        for member in members:
            if member.parameter is not None:
                parameter = member.parameter
                body = {} if parameter.broker_type == "any" else self._type(parameter.type)
                body = self._optional(body) if parameter.optional else body
                if parameter.has_default:
                    body = {**body, "default": parameter.default}
                result.append((member.name, body, parameter.required, parameter.doc))
            elif member.constant:
                body = self._optional(self._type(operation.parameter(member.constant).type))
                result.append((member.name, body, False, "The same as in the subject, if given."))
            else:
                inner = f"{operation.method}_{member.name}"
                self._add_body(inner, f"`{member.name}` in that body.", member.fields, operation)
                body = self._optional({"$ref": f"#/$defs/{self.target.name_as('type', inner)}"})
                result.append((member.name, body, False, "More members."))
        self._add(name, doc, result)

    def _field(self, field: Field) -> tuple[str, dict[str, Any], bool, str]:
        body = self._type(field.type)
        required = field.required
        if field.has_default:
            body = {**body, "default": field.default}
        elif field.encoding_field:
            required = True
        elif not required:
            body = self._optional(body)
        return field.name, body, required, field.doc

    def _optional(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self.options.nullable or not body:
            return body
        if "$ref" in body or "additionalProperties" in body:
            return {"anyOf": [body, {"type": "null"}], "default": None}
        return {**body, "type": [body["type"], "null"], "default": None}

    def _type(self, kind: Type) -> dict[str, Any]:
        if kind.item is not None:
            return {"type": "array", "items": self._type(kind.item)}
        if kind.kind == "object":
            return {"$ref": f"#/$defs/{self.target.name_as('type', kind.name)}"}
        return dict(_BASES[kind.base])


def load_generator() -> None:
    """Loads what makes the models, so that workers forked afterwards have it already: it takes 0.7 s."""
    for name in ("config", "enums", "format", "model.dataclass", "model.msgspec", "parser.jsonschema"):
        importlib.import_module(f"datamodel_code_generator.{name}")


@functools.cache
def _generate(schema: str, output: str, base_class: str, aliases: tuple[tuple[str, str], ...]) -> str:
    import datamodel_code_generator as generator  # noqa: PLC0415 - costs time that only this renderer has to pay
    from datamodel_code_generator.enums import DataModelType, InputFileType  # noqa: PLC0415
    from datamodel_code_generator.format import PythonVersion  # noqa: PLC0415

    extra: dict[str, Any] = {}
    if aliases:
        extra["aliases"] = dict(aliases)
    if base_class:
        extra["base_class"] = base_class
    if output == "dataclass":
        extra["dataclass_arguments"] = {"frozen": True, "slots": True, "kw_only": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = generator.generate(
            schema,
            input_file_type=InputFileType.JsonSchema,
            input_filename="spec",
            output_model_type=DataModelType(_OUTPUTS[output]),
            target_python_version=PythonVersion.PY_310,
            disable_timestamp=True,
            use_standard_collections=True,
            use_union_operator=True,
            use_schema_description=True,
            use_annotated=True,
            skip_root_model=True,
            strict_nullable=True,
            custom_file_header=" ",
            formatters=[],
            **extra,
        )
    if not isinstance(result, str):
        raise TypeError("datamodel-code-generator wrote more than one module")
    # Null and absent are the same in this protocol, so one of them is enough in a model.
    result = re.sub(
        r"\| None \| UnsetType = (field\(.*default=)?UNSET", lambda m: f"| None = {m[1] or ''}None", result
    )
    result = result.replace("| None | UnsetType = ", "| None = ")
    return result.replace(": Any | UnsetType = UNSET", ": Any = None").strip() + "\n"


@functools.cache
def _format(code: str, width: int) -> str:
    """Formats by ruff without any configuration, so that the bytes do not depend on where this runs."""
    from ruff import find_ruff_bin  # type: ignore[import-untyped]  # noqa: PLC0415 - only this renderer needs it

    ruff = find_ruff_bin()
    common = ["--isolated", "--target-version", "py310", "--config", f"line-length={width}"]
    for command in (
        ["check", "--quiet", "--fix", "--exit-zero", "--select", "F401,I,UP"],
        ["format", "--quiet"],
    ):
        done = subprocess.run(  # noqa: S603 - a fixed command
            [ruff, *command, *common, "-"], input=code.encode("utf-8"), stdout=subprocess.PIPE, check=True
        )
        code = done.stdout.decode("utf-8")
    return code
