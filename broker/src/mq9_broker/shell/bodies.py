"""From a request's body to an operation's arguments.

There is one set of rules, the generated description of the operation, and `BodyDecoder` interprets it. Bodies
as clients usually send them take a short cut through a generated struct (`Operation.model`), which accepts
only what these rules accept with the same result; everything else, and every error, goes the long way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from mq9_broker._generated import errors, limits
from mq9_broker.shell.description import Field, Operation, RequireAny
from mq9_broker.shell.refusal import RefusedError, refuse

# The field that errors about a body as a whole name.
BODY: Final = "body"

_LARGEST_INTEGER: Final = 2**63 - 1


class _TypeError(ValueError):
    """What is wrong with a value is that it is of another JSON type."""


# Returns a good value, perhaps in another form; a ValueError says what is wrong with a bad one.
_Check = Callable[[Any], Any]


def decode_object(body: bytes) -> dict[str, Any]:
    """Decode a body that must be a JSON object; an empty one is `{}`.

    Raises:
        RefusedError: It is not UTF-8, not JSON, not an object, or nested too deep.
    """
    if not body:
        return {}
    try:
        value = decode_json(body)
    except UnicodeDecodeError:
        raise RefusedError(errors.invalid_argument(BODY, "is not UTF-8")) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise RefusedError(errors.invalid_argument(BODY, f"is not JSON: {error}")) from None
    if type(value) is not dict:
        raise RefusedError(errors.invalid_argument(BODY, "must be a JSON object"))
    limit = limits.MAX_BODY_DEPTH
    if body.count(b"[") + body.count(b"{") > limit and _deeper_than(value, limit):
        raise _too_deep()
    return value


def decode_json(text: bytes) -> Any:
    """Decode any JSON text, numbers beyond the range of a double included.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested deeper than Python can go.
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.ValidationError:
        value = json.loads(text, parse_float=float, parse_int=_int, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair stands for no character
        return value


def is_clean(body: bytes) -> bool:
    """Whether a body that some struct has accepted also passes what a struct does not look at."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            return False
    return body.count(b"[") + body.count(b"{") <= limits.MAX_BODY_DEPTH


class BodyDecoder:
    """Decodes the requests of one operation to its command.

    Args:
        operation: The operation; its body is not a payload.
        new_address: Makes an address where the operation's partition may be left out.
    """

    def __init__(self, operation: Operation, new_address: Callable[[], str]) -> None:
        if operation.command is None:
            raise ValueError(f"{operation.name} has no command")
        self._operation = operation
        self._command = operation.command
        self._new_address = new_address
        # Addresses first: a malformed address is found before anything else is looked at.
        ordered = sorted(operation.fields, key=lambda f: f.kind != "address")
        self._fields = [(f, field_check(f)) for f in ordered]
        self._names = [name for name in operation.command.__struct_fields__ if name != "address"]
        self._has_address = "address" in operation.command.__struct_fields__
        self._model = msgspec.json.Decoder(operation.model) if operation.model is not None else None
        self._from_model = operation.from_model

    def decode(self, subject: dict[str, Any], body: bytes) -> msgspec.Struct:
        """Return the command of a request.

        Args:
            subject: What the subject named.
            body: The request's bytes.

        Raises:
            RefusedError: The body breaks a rule.
        """
        operation = self._operation
        values = dict(subject)
        if operation.body == "json":
            self._decode_body(values, subject, body)
        if self._has_address:
            address = values[operation.partition] or self._new_address().encode()
            return self._command(address, *[values[name] for name in self._names])
        return self._command(*[values[name] for name in self._names])

    def shortcut(self, address: bytes, body: bytes) -> msgspec.Struct | None:
        """Return the command of a body in the usual form; None if `decode` must look at it."""
        if self._model is None or self._from_model is None:
            return None
        try:
            model = self._model.decode(body or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return self._from_model(address, model) if is_clean(body) else None

    def _decode_body(self, values: dict[str, Any], subject: dict[str, Any], body: bytes) -> None:
        operation = self._operation
        if operation.max_body is not None and len(body) > operation.max_body:
            why = (
                f"a body of {operation.name} has at most {operation.max_body} bytes, this one has {len(body)}"
            )
            raise RefusedError(errors.payload_too_large(why))
        found = decode_object(body)
        for field, check in self._fields:
            values[field.name] = self._value(field, check, found, values)
        for name in operation.same_as_subject:
            given = found.get(name)
            if given is None or given == "":
                continue
            named = subject[name].decode()
            if given != named:
                raise refuse(errors.INVALID_ARGUMENT, name, f"must be the subject's {named} or left out")
        self._check_rules(values)
        if operation.open_body:
            values[operation.open_body] = body

    @staticmethod
    def _value(field: Field, check: _Check, found: dict[str, Any], values: dict[str, Any]) -> Any:
        if field.only_when is not None and values[field.only_when[0]] != field.only_when[1]:
            return field.default
        place: Any = found
        for step in field.path[:-1]:
            place = place.get(step)
            if place is None:
                break
            if type(place) is not dict:
                raise refuse(errors.INVALID_ARGUMENT, step, "must be an object")
        value = place.get(field.path[-1]) if place is not None else None
        if value is None or (value == "" and field.kind in ("string", "address")):
            if field.only_when is not None:
                raise refuse(
                    errors.INVALID_ARGUMENT, field.name, f"is required with {' '.join(field.only_when)}"
                )
            if field.required:
                raise refuse(_code(field), field.name, "is required")
            return field.default
        return check(value)

    def _check_rules(self, values: dict[str, Any]) -> None:
        for rule in self._operation.rules:
            if isinstance(rule, RequireAny):
                if all(_is_absent(values[name]) for name in rule.names):
                    raise refuse(
                        errors.INVALID_ARGUMENT, rule.fails_on, f"{' or '.join(rule.names)} is required"
                    )
            elif values[rule.name] and _is_absent(values[rule.requires]):
                raise refuse(errors.INVALID_ARGUMENT, rule.fails_on, f"needs {rule.requires}")


def value_check(field: Field) -> _Check:
    """Return a function that turns a good value into what the engine gets; ValueError for a bad one."""
    if field.kind == "integer":
        return _integer_check(field)
    if field.kind == "boolean":
        return _boolean
    if field.kind == "list":
        return _list_check(field)
    string = _string_check(field)
    return string if field.kind == "string" else lambda value: string(value).encode()


def decimal(text: str, field: Field) -> int:
    """Read an integer from a header or a subject: a few ASCII digits and nothing else.

    Raises:
        RefusedError: It is no such integer, or outside its bounds.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= limits.MAX_INTEGER_DIGITS):
        why = f"must be 1 to {limits.MAX_INTEGER_DIGITS} digits"
        raise refuse(errors.INVALID_ARGUMENT, field.path[0], why)
    number: int = field_check(field)(int(text))
    return number


def field_check(field: Field) -> _Check:
    """Return a function that turns a good value into what the engine gets; `RefusedError` for a bad one."""
    check = value_check(field)

    def checked(value: Any) -> Any:
        try:
            return check(value)
        except _TypeError as error:
            raise refuse(errors.INVALID_ARGUMENT, ".".join(field.path), str(error)) from None
        except ValueError as error:
            raise refuse(_code(field), ".".join(field.path), str(error)) from None

    return checked


def _integer_check(field: Field) -> _Check:
    low = field.minimum if field.minimum is not None else -_LARGEST_INTEGER - 1
    high = field.maximum if field.maximum is not None else _LARGEST_INTEGER

    def integer(value: Any) -> Any:
        if type(value) is not int:
            raise _TypeError(f"must be an integer, not {_kind_of(value)}")
        if not low <= value <= high:
            raise ValueError(f"must be {low} to {high}, not {_short(value)}")
        return value

    return integer


def _boolean(value: Any) -> Any:
    if type(value) is not bool:
        raise _TypeError(f"must be true or false, not {_kind_of(value)}")
    return value


def _string_check(field: Field) -> _Check:
    problem = field.text.problem() if field.text is not None else None
    values = field.values

    def string(value: Any) -> Any:
        if type(value) is not str:
            raise _TypeError(f"must be a string, not {_kind_of(value)}")
        if values and value not in values:
            raise ValueError(f"must be one of {', '.join(values)}, not {_short(value)}")
        if problem is not None:
            why = problem(value)
            if why is not None:
                raise ValueError(why)
        return value

    return string


def _list_check(field: Field) -> _Check:
    if field.item is None:
        raise ValueError(f"{field.name}: a list needs an item")
    check_item = value_check(field.item)
    low, high = field.min_items, field.max_items
    distinct = field.distinct

    def items(value: Any) -> Any:
        if type(value) is not list:
            raise _TypeError(f"must be an array, not {_kind_of(value)}")
        try:
            checked = [check_item(item) for item in value]
        except ValueError as error:
            raise ValueError(f"an item {error}") from None
        if distinct:
            checked = list(dict.fromkeys(checked))
        if len(checked) < low:
            raise ValueError(f"must have at least {low} items")
        if high is not None and len(checked) > high:
            raise ValueError(f"must have at most {high} items, not {len(checked)}")
        return tuple(checked)

    return items


def _is_absent(value: Any) -> bool:
    return value is None or value in ("", b"", ())


def _code(field: Field) -> str:
    return field.text.code if field.text is not None else errors.INVALID_ARGUMENT


def _kind_of(value: Any) -> str:
    if type(value) is float:
        return "a number with fraction or exponent"
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer"}
    return names.get(type(value), "null")


def _short(value: Any) -> str:
    # A huge integer has no decimal text in Python, and a long one helps nobody.
    if type(value) is int:
        return str(value) if abs(value) < 10**24 else "a number that large"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _too_deep() -> RefusedError:
    return RefusedError(errors.invalid_argument(BODY, f"is nested deeper than {limits.MAX_BODY_DEPTH}"))


def _deeper_than(value: Any, limit: int) -> bool:
    level: list[Any] = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for container in level:
            items = container.values() if type(container) is dict else container
            inner += [item for item in items if type(item) is dict or type(item) is list]
        level = inner
        if not level:
            return False
    return True


def _int(text: str) -> int:
    # Python refuses to convert thousands of digits; any integer that long is beyond every bound.
    return int(text) if len(text) < 1000 else (-1 if text.startswith("-") else 1) << 200


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
