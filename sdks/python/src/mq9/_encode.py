"""Arguments of a call on their way out: checked, then in the form that is sent."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from mq9._generated.errors import InvalidArgumentError, InvalidMailAddressError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_HEADER_NAME = re.compile(r"[A-Za-z0-9\-_.]+", re.ASCII)
_PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHOWN = 60


def invalid(field: str, why: str, code: str = "invalid_argument") -> InvalidArgumentError:
    """The error for an argument that can't be sent."""
    if code == "invalid_mail_address":
        return InvalidMailAddressError(f"{field}: {why}", code=code, field=field)
    return InvalidArgumentError(f"{field}: {why}", code=code, field=field)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


class Text(NamedTuple):
    """What a text has to satisfy.

    Attributes:
        code: The code of the error if it does not.
        min_length: Fewest characters.
        max_length: Most characters; None = any number.
        min_bytes: Fewest bytes of UTF-8.
        max_bytes: Most bytes of UTF-8; None = any number.
        pattern: What it has to match as a whole.
        chars: The same for people.
        forbid: Texts that may not occur in it.
        text: `no_control`, `printable_ascii` (without blanks at the ends), or empty for any characters.
    """

    code: str = "invalid_argument"
    min_length: int = 0
    max_length: int | None = None
    min_bytes: int = 0
    max_bytes: int | None = None
    pattern: re.Pattern[str] | None = None
    chars: str = ""
    forbid: tuple[str, ...] = ()
    text: str = ""

    def check(self, field: str, value: object) -> str:
        """Gives the text back if it is one and satisfies everything.

        Raises:
            InvalidArgumentError: If not; it names `field`.
        """
        if not isinstance(value, str):
            raise invalid(field, f"must be text, not {type(value).__name__}", self.code)
        try:
            size = len(value.encode("utf-8"))
        except UnicodeEncodeError:
            raise invalid(field, "has half a surrogate pair, which is no character", self.code) from None
        why = self._why_not(value, size)
        if why:
            raise invalid(field, f"{why}: {_shown(value)}" if value else why, self.code)
        return str(value)

    def _why_not(self, value: str, size: int) -> str:
        if not value and (self.min_length or self.min_bytes):
            return "must not be empty"
        if self.max_length is not None and len(value) > self.max_length:
            return f"has {len(value)} characters, at most {self.max_length} are allowed"
        if self.max_bytes is not None and size > self.max_bytes:
            return f"has {size} bytes in UTF-8, at most {self.max_bytes} are allowed"
        if self.min_length > len(value) or self.min_bytes > size:
            return "is too short"
        if self.pattern is not None and not self.pattern.fullmatch(value):
            return f"must be {self.chars}"
        for part in self.forbid:
            if part in value:
                return f"must not contain {part!r}"
        if self.text == "no_control" and _CONTROL.search(value):
            return "must not contain control characters"
        if self.text == "printable_ascii" and not _PRINTABLE.fullmatch(value):
            return "must be printable ASCII without blanks at its ends"
        return ""


_HEADER_TEXT = Text(min_bytes=1, text="printable_ascii")


class Integer(NamedTuple):
    """The bounds of a whole number."""

    low: int
    high: int

    def check(self, field: str, value: object) -> int:
        """Gives a whole number within its bounds back.

        Raises:
            InvalidArgumentError: If it is none; `True` is no number. It names `field`.
        """
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(field, f"must be a whole number, not {_shown(value)}")
        if not self.low <= value <= self.high:
            raise invalid(field, f"must be {self.low} to {self.high}, not {_shown(value)}")
        return int(value)


class Rule(Protocol[T_co]):
    """What an item of a list has to satisfy."""

    def check(self, field: str, value: object) -> T_co:
        """Gives the item back, or raises InvalidArgumentError."""
        ...


def boolean(field: str, value: object) -> bool:
    """Gives a truth value back.

    Raises:
        InvalidArgumentError: If it is none.
    """
    if not isinstance(value, bool):
        raise invalid(field, f"must be True or False, not {_shown(value)}")
    return value


def items(field: str, value: object, rule: Rule[T], *, low: int = 0, high: int | None = None) -> list[T]:
    """Gives a list back whose items are checked one by one; any iterable but text will do.

    Raises:
        InvalidArgumentError: If it is none, has too few or too many items, or an item is wrong.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise invalid(field, f"must be a list, not {type(value).__name__}")
    result = [rule.check(field, item) for item in value]
    if len(result) < low:
        raise invalid(
            field, "must not be empty" if low == 1 else f"must have at least {low} items, not {len(result)}"
        )
    if high is not None and len(result) > high:
        raise invalid(field, f"must have at most {high} items, not {len(result)}")
    return result


def header(field: str, value: str) -> str:
    """Gives text back that can travel in a header.

    Raises:
        InvalidArgumentError: If it is not printable ASCII, or has blanks at its ends.
    """
    return _HEADER_TEXT.check(field, value)


def joined(field: str, values: Iterable[str]) -> str:
    """Texts for one header, with commas between.

    Raises:
        InvalidArgumentError: If one can't travel in a header.
    """
    return ",".join(header(field, value) for value in values)


def user_headers(field: str, value: object, reserved: frozenset[str]) -> dict[str, str]:
    """Gives the user's own headers back.

    Raises:
        InvalidArgumentError: If a name or value can't be sent, or an option stands for a name.
    """
    if not isinstance(value, Mapping):
        raise invalid(field, f"must be a mapping of names to values, not {type(value).__name__}")
    result: dict[str, str] = {}
    for name, text in value.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise invalid(field, f"a name must be letters, digits and -_. only: {_shown(name)}")
        if name.lower() in reserved:
            raise invalid(field, f"{name} has an option of its own")
        result[name] = _HEADER_TEXT.check(field, text)
    return result


def json_object(field: str, value: object) -> dict[str, Any]:
    """Gives a JSON object of the user's own back.

    Raises:
        InvalidArgumentError: If it is none.
    """
    if not isinstance(value, Mapping):
        raise invalid(field, f"must be a mapping, not {type(value).__name__}")
    return dict(value)


def json_bytes(field: str, value: object) -> bytes:
    """A JSON value as UTF-8.

    Raises:
        InvalidArgumentError: If it is none (an object of another type, a number that is not finite, half a
            surrogate pair).
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(field, f"is no JSON value: {error}") from error


def payload(field: str, value: object) -> bytes:
    """A payload as bytes: bytes as they are, text as UTF-8, anything else as JSON.

    Raises:
        InvalidArgumentError: If it is neither.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError:
            raise invalid(field, "has half a surrogate pair, which is no character") from None
    return json_bytes(field, value)


def timeout(value: object) -> float:
    """A timeout in seconds.

    Raises:
        InvalidArgumentError: If it is no number above 0.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value <= 0
    ):
        raise invalid("timeout", f"must be seconds above 0, not {_shown(value)}")
    return float(value)


def generated_dedup_id(digits: int) -> str:
    """A new dedup-id of that many random hexadecimal digits."""
    return secrets.token_hex((digits + 1) // 2)[:digits]
