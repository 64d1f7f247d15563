"""The words in which the generated tables describe operations: types only, no fact of the protocol.

`mq9_broker._generated` builds these from spec/; the decoder of this package interprets them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

Effect = Literal["read", "write"]
BodyKind = Literal["none", "json", "payload"]
Kind = Literal["string", "address", "integer", "boolean", "list"]


@dataclass(frozen=True, slots=True)
class Text:
    """What a string must look like. Lengths are characters, bytes are of its UTF-8; None is unbounded.

    Attributes:
        chars: Allowed characters, written as the inside of a regular expression's class.
        first: The same for the first character.
        last: The same for the last character.
        forbid: Strings that must not occur in it.
        no_control: No control characters (Unicode category Cc).
        code: Error code of a string that does not look like this.
        doc: How it must look, in words, for the error's text; made from the rest when empty.
    """

    min_length: int | None = None
    max_length: int | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    chars: str | None = None
    first: str | None = None
    last: str | None = None
    forbid: tuple[str, ...] = ()
    no_control: bool = False
    code: str = "invalid_argument"

    def problem(self) -> Callable[[str], str | None]:
        """Return a function that says what is wrong with a string, or None if nothing is."""
        only = re.compile(f"[{self.chars}]*") if self.chars is not None else None
        first = re.compile(f"[{self.first}]") if self.first is not None else None
        last = re.compile(f"[{self.last}]") if self.last is not None else None
        spelled = _spell(self.chars)

        def check(value: str) -> str | None:
            size = len(value)
            if not value and (self.min_length or self.min_bytes):
                return "must not be empty"
            if self.min_length is not None and size < self.min_length:
                return f"must have at least {self.min_length} characters"
            if self.max_length is not None and size > self.max_length:
                return f"has {size} characters, at most {self.max_length} are allowed"
            if self.min_bytes is not None or self.max_bytes is not None:
                octets = size if value.isascii() else len(value.encode())
                if self.min_bytes is not None and octets < self.min_bytes:
                    return f"must have at least {self.min_bytes} bytes"
                if self.max_bytes is not None and octets > self.max_bytes:
                    return f"has {octets} bytes, at most {self.max_bytes} are allowed"
            if self.no_control and not value.isprintable() and _CONTROL.search(value) is not None:
                return "must not contain control characters"
            if only is not None and only.fullmatch(value) is None:
                return f"may contain only {spelled}"
            if first is not None and value and first.match(value) is None:
                return f"must begin with one of {_spell(self.first)}"
            if last is not None and value and last.match(value[-1]) is None:
                return f"must end with one of {_spell(self.last)}"
            for part in self.forbid:
                if part in value:
                    return f"must not contain {part!r}"
            return None

        return check


@dataclass(frozen=True, slots=True)
class Field:
    """One argument of an operation, and where in the request it stands.

    Attributes:
        name: The argument's name.
        path: Where it stands in the body (`("config", "num_msgs")`), or the header's name, or its place in
            the subject.
        kind: What JSON value it is; an address is a string that the engine gets as bytes.
        required: Whether leaving it out is an error; null counts as left out, and so does an empty string.
        default: What counts when it is left out.
        minimum: Smallest integer allowed.
        maximum: Largest integer allowed.
        text: What a string must look like.
        values: The words allowed, if only some are.
        item: What each item of a list is.
        min_items: Fewest items of a list.
        max_items: Most items of a list; of distinct ones with `distinct`.
        distinct: Repeated items are dropped before they are counted.
        only_when: (argument, value): looked at only when that argument has that value, required then, ignored
            otherwise.
        join: A header of this name may repeat: all values count, joined by commas.
    """

    name: str
    path: tuple[str, ...]
    kind: Kind
    required: bool = False
    default: Any = None
    minimum: int | None = None
    maximum: int | None = None
    text: Text | None = None
    values: tuple[str, ...] = ()
    item: Field | None = None
    min_items: int = 0
    max_items: int | None = None
    distinct: bool = False
    only_when: tuple[str, str] | None = None
    join: bool = False


@dataclass(frozen=True, slots=True)
class RequireAny:
    """At least one of these arguments must be given."""

    names: tuple[str, ...]
    fails_on: str


@dataclass(frozen=True, slots=True)
class WhenPresent:
    """Where one argument is given and is not 0, another must be given too."""

    name: str
    requires: str
    fails_on: str


Rule = RequireAny | WhenPresent


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the protocol, as the broker needs it.

    Attributes:
        name: `msg.fetch`.
        subject: The subject up to its first parameter, without a dot at its end.
        subject_fields: What follows in the subject, one dot before each; all but the first are one token
            each.
        effect: Whether it changes anything.
        partition: The argument that names the mailbox it concerns (the command's `address`), or `registry`.
        command: The struct that the engine gets; None where the body is a payload.
        body: What the request's bytes are.
        max_body: Most bytes of a body; more is payload_too_large.
        fields: The arguments in the body (`body="json"`).
        headers: The arguments in headers.
        same_as_subject: Names in the body that, if given, must equal the subject's.
        rules: Conditions over several arguments.
        open_body: The argument that holds the body's fields of any name, as JSON text; empty if others are
            ignored.
        model: The struct that a usual body decodes to at once.
        from_model: Makes the command of an address and a model; None if the long way has to be gone. See
            bodies.py.
    """

    name: str
    subject: bytes
    effect: Effect
    partition: str
    command: type[msgspec.Struct] | None
    subject_fields: tuple[Field, ...] = ()
    body: BodyKind = "none"
    max_body: int | None = None
    fields: tuple[Field, ...] = ()
    headers: tuple[Field, ...] = ()
    same_as_subject: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    open_body: str = ""
    model: type[msgspec.Struct] | None = None
    from_model: Callable[[bytes, Any], msgspec.Struct | None] | None = None


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def _spell(chars: str | None) -> str:
    """Write the inside of a character class for people: `a-z0-9.` becomes `a-z 0-9 .`."""
    return " ".join(re.findall(r".-.|.", chars or ""))
