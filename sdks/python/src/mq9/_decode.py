"""Replies on their way in: strict where the protocol is, lenient where one odd value must not spoil all."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from mq9._generated import errors

T = TypeVar("T")
D = TypeVar("D")

_logger = logging.getLogger("mq9")
_MAX_INTEGER = 2**63 - 1


class OddValueError(Exception):
    """A value is not of the type that the protocol says."""


def members(value: object) -> Mapping[str, Any]:
    """The members of a JSON object."""
    if not isinstance(value, dict):
        raise OddValueError("must be an object")
    return value


def integer(value: object) -> int:
    """A whole number of at most 63 bits and a sign."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER
    ):
        raise OddValueError("must be a whole number")
    return value


def number(value: object) -> float:
    """Any number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OddValueError("must be a number")
    return value


def boolean(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise OddValueError("must be true or false")
    return value


def text(value: object) -> str:
    """A text."""
    if not isinstance(value, str):
        raise OddValueError("must be text")
    return value


def json_object(value: object) -> dict[str, Any]:
    """A JSON object of the user's own."""
    if not isinstance(value, dict):
        raise OddValueError("must be an object")
    return value


def header_map(value: object) -> dict[str, list[str]]:
    """Header names with their values."""
    return {name: list_of(text)(values) for name, values in members(value).items()}


def list_of(item: Callable[[object], T], *, drop: bool = False) -> Callable[[object], list[T]]:
    """A list; with `drop` an odd item is left out and logged instead of failing the whole."""

    def decode(value: object) -> list[T]:
        if not isinstance(value, list):
            raise OddValueError("must be a list")
        result: list[T] = []
        for index, entry in enumerate(value):
            try:
                result.append(item(entry))
            except OddValueError as error:
                if not drop:
                    raise OddValueError(f"[{index}]{_joined(error)}") from None
                _logger.warning("left an odd item out of a reply: [%d]%s", index, _joined(error))
        return result

    return decode


def required(fields: Mapping[str, Any], name: str, decode: Callable[[object], T]) -> T:
    """A member that has to be there."""
    if fields.get(name) is None:
        raise OddValueError(f".{name}: is missing")
    try:
        return decode(fields[name])
    except OddValueError as error:
        raise OddValueError(f".{name}{_joined(error)}") from None


def optional(fields: Mapping[str, Any], name: str, decode: Callable[[object], T], default: D) -> T | D:
    """A member that may be absent or null."""
    return default if fields.get(name) is None else required(fields, name, decode)


def lenient(fields: Mapping[str, Any], name: str, decode: Callable[[object], T], default: D) -> T | D:
    """A member that counts as absent when its value is odd."""
    try:
        return optional(fields, name, decode, default)
    except OddValueError:
        return default


def payload(fields: Mapping[str, Any], name: str, encoding_name: str) -> bytes:
    """A message's payload: decoded base64, or the UTF-8 of a text that is none; empty if it is missing."""
    value = fields.get(name)
    if not isinstance(value, str):
        return b""
    if fields.get(encoding_name) == "base64":
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            _logger.warning("a message says base64, but its payload is none: taken as text")
    return value.encode("utf-8", "replace")


def _joined(error: OddValueError) -> str:
    why = str(error)
    return why if why.startswith((".", "[")) else f": {why}"


def result(operation: str, reply: Mapping[str, Any], decode: Callable[[Mapping[str, Any]], T]) -> T:
    """Decodes a successful reply.

    Raises:
        ProtocolError: If it is not as the protocol says.
    """
    try:
        return decode(reply)
    except OddValueError as error:
        raise errors.ProtocolError(f"{operation}: reply{_joined(error)}", operation=operation) from None


def reply(operation: str, data: bytes) -> dict[str, Any]:
    """Parses a reply.

    Raises:
        ServerError: If the broker answered with an error.
        InvalidArgumentError: Likewise, if it is about an argument.
        ProtocolError: If the reply is not a JSON object with a text `error`.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise errors.ProtocolError(
            f"{operation}: the reply is no JSON: {error}", operation=operation
        ) from error
    if not isinstance(value, dict) or not isinstance(value.get("error"), str):
        raise errors.ProtocolError(
            f"{operation}: the reply is no JSON object with a text `error`", operation=operation
        )
    message = value["error"]
    if message:
        code = value.get("code")
        raise errors.server_error(
            message, code if isinstance(code, str) and code else None, operation=operation
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
