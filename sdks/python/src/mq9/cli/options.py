"""How the generated description of an operation looks; see `mq9._generated.commands`."""

from __future__ import annotations

from typing import NamedTuple


class Option(NamedTuple):
    """A parameter of an operation.

    Attributes:
        name: Its name as a keyword of the SDK's method.
        type: `string`, `integer`, `number`, `boolean`, `json_object` or `header_map_single`.
        help: What it means.
        positional: Whether the protocol lists it among those that need no name.
        required: Whether it has to be given.
        repeated: Whether it is a list.
        unit: `seconds`, `milliseconds`, `unix_seconds` or empty.
        values: The values that are known, if it is one of several.
    """

    name: str
    type: str
    help: str
    positional: bool = False
    required: bool = False
    repeated: bool = False
    unit: str = ""
    values: tuple[str, ...] = ()


class Command(NamedTuple):
    """An operation.

    Attributes:
        name: Its name in the protocol.
        method: The SDK's method.
        summary: One sentence.
        doc: More prose.
        options: Its parameters, but for a payload.
    """

    name: str
    method: str
    summary: str
    doc: str
    options: tuple[Option, ...]
