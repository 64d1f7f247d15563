"""JSON Schema 2020-12 of what travels: request bodies, replies, messages, headers.

Replies are open (unknown fields and unknown enum texts are allowed: a newer broker may send them), and so
are requests (unknown fields are ignored). What JSON Schema can't say, such as bounds in bytes, stands in
`x-` keys and in words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mq9_codegen.model import BodyField, Bounds, Field, Object, Operation, Parameter, Rule, Spec, Type

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BASE = "https://mq9.robustmq.com/schemas/"
"""Only a name: nothing is fetched from there."""

JsonSchema = dict[str, Any]
_BASES: dict[str, JsonSchema] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "bytes": {"type": "string"},
    "json_object": {"type": "object"},
    "header_map": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
    "header_map_single": {"type": "object", "additionalProperties": {"type": "string"}},
}


@dataclass(frozen=True)
class Options:
    """How schemas are written.

    Attributes:
        bounds: Whether bounds are part of it.
        docs: Whether prose is.
        nullable: Whether optional members may be null.
        refs: What stands before an object's name in `$ref`.
    """

    bounds: bool = True
    docs: bool = True
    nullable: bool = True
    refs: str = "#/$defs/"


def schema(spec: Spec, kind: str, name: str = "") -> JsonSchema:
    """One self-contained schema document.

    Args:
        spec: The protocol.
        kind: `request`, `reply` or `headers` (of the operation `name`), `object` (the object type `name`),
            or `error` (a failed reply).
        name: See `kind`.
    """
    title = {"error": "Failed reply", "object": name}.get(kind, f"{kind.capitalize()} of {name}")
    body = part(spec, kind, name)
    file = f"{name}.{kind}" if name else kind
    result: JsonSchema = {
        "$schema": DIALECT,
        "$id": f"{BASE}{spec.version}/{file}.schema.json",
        "title": title,
        **body,
    }
    definitions = definitions_for(spec, body, Options())
    return {**result, "$defs": definitions} if definitions else result


def part(spec: Spec, kind: str, name: str = "", refs: str = "#/$defs/") -> JsonSchema:
    """The body of a schema, for a document that holds many and keeps object types at `refs`."""
    options = Options(refs=refs)
    if kind == "error":
        return error_schema(spec, options)
    if kind == "object":
        return object_schema(spec.object(name), options)
    operation = spec.operation(name)
    return {"request": request_schema, "reply": reply_schema, "headers": headers_schema}[kind](
        operation, options
    )


def definitions_for(spec: Spec, body: JsonSchema, options: Options) -> JsonSchema:
    """The object types that a schema refers to, directly or through others, by name."""
    found: dict[str, JsonSchema] = {}
    queue = [body]
    while queue:
        for name in re.findall(re.escape(options.refs) + r"([a-z0-9_]+)", repr(queue.pop())):
            if name not in found:
                found[name] = object_schema(spec.object(name), options)
                queue.append(found[name])
    return dict(sorted(found.items()))


def type_schema(
    kind: Type, options: Options, bounds: Bounds | None = None, optional: bool = False
) -> JsonSchema:
    """The schema of a type; `optional` texts may be empty, which means the same as absent."""
    if kind.kind == "list":
        assert kind.item is not None
        result: JsonSchema = {"type": "array", "items": type_schema(kind.item, options)}
    elif kind.kind == "object":
        return {"$ref": f"{options.refs}{kind.name}"}
    elif kind.kind == "enum":
        return {"type": "string"}
    else:
        result = dict(_BASES[kind.base])
        if kind.base == "bytes" and options.bounds:
            result["contentEncoding"] = "base64"
    if options.bounds:
        result.update(_bounds(kind, bounds or kind.bounds, optional))
    return result


def _bounds(kind: Type, bounds: Bounds, optional: bool) -> JsonSchema:
    result: JsonSchema = {}
    pairs = [
        ("minimum", bounds.min),
        ("maximum", bounds.max),
        ("minItems", bounds.min_items),
        ("maxItems", bounds.max_items),
    ]
    if kind.base == "string":
        lowest = bounds.min_length if bounds.min_length is not None else (1 if bounds.min_bytes else None)
        pairs += [("minLength", None if optional else lowest)]
        # A text of n bytes has at most n characters.
        pairs += [("maxLength", bounds.max_length if bounds.max_length is not None else bounds.max_bytes)]
        pattern = bounds.pattern
        if pattern and optional:
            pattern = f"^({pattern[1:-1]})?$"
        if bounds.text == "no_control":
            pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
        elif bounds.text == "printable_ascii":
            pattern = "^([!-~]([ -~]*[!-~])?)?$"
        if pattern:
            result["pattern"] = pattern
        if bounds.forbid:
            # The type has to be said again: a pattern alone is satisfied by what is no text.
            result["not"] = {"type": "string", "pattern": "|".join(re.escape(text) for text in bounds.forbid)}
        if bounds.max_bytes is not None:
            result["x-max-bytes"] = bounds.max_bytes
    result.update({key: value for key, value in pairs if value is not None})
    return result


def member_schema(
    body: JsonSchema,
    nullable: bool,
    doc: str,
    default: Any,
    has_default: bool,
    options: Options,
    deprecated: str = "",
) -> JsonSchema:
    """The schema of a member of an object, with what stands around its type."""
    if nullable and options.nullable:
        if "$ref" in body:
            body = {"anyOf": [body, {"type": "null"}]}
        elif isinstance(body.get("type"), str):
            body = {**body, "type": [body["type"], "null"]}
    if has_default:
        body = {**body, "default": default}
    if deprecated and options.docs:
        body, doc = {**body, "deprecated": True}, f"{doc} Deprecated: {deprecated}".lstrip()
    return {**body, "description": doc} if doc and options.docs else body


def object_schema(item: Object, options: Options) -> JsonSchema:
    """The schema of a shared object type."""
    return fields_schema(item.fields, item.doc, options)


def fields_schema(
    fields: tuple[Field, ...], doc: str, options: Options, extra: JsonSchema | None = None
) -> JsonSchema:
    """The schema of an object with these fields, after the required members in `extra`."""
    properties: JsonSchema = dict(extra or {})
    for field in fields:
        body = type_schema(field.type, options)
        if field.encoding_field:
            # Another broker sends plain text here; only the sibling field says which.
            body.pop("contentEncoding", None)
        properties[field.name] = member_schema(
            body,
            not field.required,
            field.doc,
            field.default,
            field.has_default,
            options,
            field.deprecated,
        )
    result: JsonSchema = {"type": "object", "properties": properties}
    if doc and options.docs:
        result = {"description": doc, **result}
    required = [*(extra or {}), *(field.name for field in fields if field.required)]
    return {**result, "required": required} if required else result


def reply_schema(operation: Operation, options: Options = Options()) -> JsonSchema:
    """A successful reply."""
    error: JsonSchema = {"error": {"const": "", "description": "Empty: the operation succeeded."}}
    return fields_schema(operation.reply, f"A successful reply of {operation.name}.", options, error)


def error_schema(spec: Spec, options: Options) -> JsonSchema:
    """A failed reply."""
    known = ", ".join(f"`{code.name}`" for code in spec.codes)
    return {
        "description": "A failed reply, of any operation.",
        "type": "object",
        "properties": {
            "error": {"type": "string", "minLength": 1, "description": "What went wrong, for people."},
            "code": {
                "type": "string",
                "description": f"What went wrong, for programs. Known: {known}; others may follow.",
            },
        },
        "required": ["error"],
    }


def request_schema(operation: Operation, options: Options = Options()) -> JsonSchema:
    """The body of a request."""
    if operation.body == "none":
        return {"description": f"{operation.name} has no body; any is ignored."}
    if operation.body == "payload":
        return {"description": f"The body of {operation.name} is the payload: any bytes, not JSON."}
    result = body_schema(operation.body_fields, operation, options)
    if options.docs:
        result = {"description": f"The body of {operation.name}; empty means {{}}.", **result}
        if operation.deprecated:
            result["deprecated"] = True
    conditions = [_rule_schema(rule, operation) for rule in operation.rules] if options.bounds else []
    conditions = [condition for condition in conditions if condition]
    if len(conditions) == 1:
        result.update(conditions[0])
    elif conditions:
        result["allOf"] = conditions
    return result


def body_schema(members: tuple[BodyField, ...], operation: Operation, options: Options) -> JsonSchema:
    """The schema of a body, or of an object in it."""
    properties: JsonSchema = {}
    required: list[str] = []
    for member in members:
        if member.parameter is not None:
            parameter = member.parameter
            properties[member.name] = parameter_schema(parameter, options)
            if parameter.required:
                required.append(member.name)
        elif member.constant:
            parameter = operation.parameter(member.constant)
            body = type_schema(parameter.type, options, parameter.bounds, True)
            doc = "May be left out; must equal the address in the subject."
            properties[member.name] = member_schema(body, True, doc, None, False, options)
        else:
            properties[member.name] = member_schema(
                body_schema(member.fields, operation, options), True, "", None, False, options
            )
    result: JsonSchema = {"type": "object", "properties": properties}
    return {**result, "required": required} if required else result


def parameter_schema(parameter: Parameter, options: Options) -> JsonSchema:
    """The schema of one parameter as it travels in a body."""
    optional = parameter.optional
    if parameter.broker_type == "any":
        body: JsonSchema = {}
    else:
        body = type_schema(parameter.type, options, parameter.bounds, optional)
    return member_schema(
        body,
        optional,
        parameter.doc,
        parameter.default,
        parameter.has_default,
        options,
        parameter.deprecated,
    )


def _rule_schema(rule: Rule, operation: Operation) -> JsonSchema:
    def needs(name: str) -> JsonSchema:
        result: JsonSchema = {"required": [operation.parameter(name).path[-1]]}
        for key in reversed(operation.parameter(name).path[:-1]):
            result = {"required": [key], "properties": {key: result}}
        return result

    if rule.kind == "require_any":
        return {"anyOf": [needs(name) for name in rule.require]}
    path = operation.parameter(rule.subject).path
    condition: JsonSchema = (
        {"const": rule.value} if rule.kind == "when" else {"type": "integer", "exclusiveMinimum": 0}
    )
    if rule.kind == "when_present" and operation.parameter(rule.subject).type.base != "integer":
        condition = {"not": {"type": "null"}}
    for key in reversed(path):
        condition = {"required": [key], "properties": {key: condition}}
    return {"if": condition, "then": needs(rule.require[0])}


def headers_schema(operation: Operation, options: Options = Options()) -> JsonSchema:
    """The headers of a request, as texts."""
    properties: JsonSchema = {}
    for parameter in operation.placed("header"):
        header = parameter.header
        assert header is not None
        body: JsonSchema = {"type": "string"}
        if header.encoding == "integer":
            body["pattern"] = "^[0-9]{1,19}$"
        elif header.encoding == "text" and parameter.bounds.max_bytes:
            body["x-max-bytes"] = parameter.bounds.max_bytes
        properties[header.name] = member_schema(
            body, False, parameter.doc, None, False, options, parameter.deprecated
        )
    return {
        "description": f"Headers of {operation.name}, all optional; any others are kept and handed back.",
        "type": "object",
        "properties": properties,
        "additionalProperties": {"type": "string"},
    }
