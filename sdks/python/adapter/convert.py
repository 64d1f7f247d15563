"""Between the adapter protocol's JSON and the SDK's own values, by the kinds in `dispatch`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from dispatch import OBJECTS


class NotUnderstood(Exception):  # noqa: N818 (an answer of the protocol: harness_error)
    """A request that this adapter does not know how to carry out."""


def arguments(given: Mapping[str, Any], parameters: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Keyword arguments for a method of the SDK."""
    result: dict[str, Any] = {}
    for name, value in given.items():
        plain_name, form = name, ""
        if name not in parameters:
            plain_name, _, form = name.rpartition("_")
        if plain_name not in parameters:
            raise NotUnderstood(f"there is no parameter {name!r}")
        python_name, kind = parameters[plain_name]
        result[python_name] = argument(value, kind, form)
    return result


def argument(value: Any, kind: str, form: str) -> Any:
    """One argument; `form` is what follows the parameter's name: text, b64 or json."""
    if form == "b64":
        return base64.b64decode(value)
    if form == "json":
        return json.loads(value)
    if kind == "id":
        return int(value) if isinstance(value, str) else value
    if kind.startswith("list:") and isinstance(value, list):
        return [argument(item, kind[5:], "") for item in value]
    return value


def result(value: Any, kind: str, decode: list[str]) -> Any:
    """A result in the protocol's form; absent fields are left out."""
    if kind == "none":
        return {}
    if kind.startswith("list:"):
        return [result(item, kind[5:], decode) for item in value]
    if kind == "id":
        return str(value)
    if kind == "json":
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if kind.startswith("object:"):
        return object_(value, kind[7:], decode)
    return value


def object_(value: Any, name: str, decode: list[str]) -> dict[str, Any]:
    """An object of the SDK in the protocol's form."""
    fields: dict[str, Any] = {}
    for wire_name, (python_name, kind) in OBJECTS[name].items():
        item = getattr(value, python_name)
        if item is None:
            continue
        if kind == "payload":
            fields[f"{wire_name}_b64"] = base64.b64encode(item).decode()
        elif kind == "json":
            fields[f"{wire_name}_json"] = result(item, kind, decode)
        else:
            fields[wire_name] = result(item, kind, decode)
    if name == "message" and "text" in decode:
        fields["decoded_text"] = value.text()
    if name == "message" and "json" in decode:
        fields["decoded_json"] = result(value.json(), "json", decode)
    return fields
