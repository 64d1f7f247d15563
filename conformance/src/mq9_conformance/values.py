"""Values of a scenario: variables, payload forms and generators, resolved into what is sent or compared."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_VARIABLE = re.compile(r"\$\$|\$\{([a-z][a-z0-9_]*)\}|\$([a-z][a-z0-9_]*)")
_WHOLE = re.compile(r"\$(?:\{([a-z][a-z0-9_]*)\}|([a-z][a-z0-9_]*))")

OPERATORS = frozenset(
    [
        "add",
        "length",
        "range",
        "json_text",
        "regex",
        "gt",
        "gte",
        "lt",
        "lte",
        "between",
        "exactly",
        "contains",
        "unordered",
        "not",
        "one_of",
        "all",
    ]
)
"""Names after a dollar that are matchers or generators when they are the first key of a map."""

LITERALS = frozenset({"mq9"}) | OPERATORS
"""Names after a dollar that are text and no variables."""

MATCHER_WORDS = frozenset({"any", "absent", "string", "integer", "boolean", "number", "list", "map"})
"""Words that stand for a matcher when a whole value is `$word`."""

AUTOMATIC = ("box", "agent", "word")
"""Variables that begin like this are unique in each run and never bound by hand."""

PAYLOAD_FORMS = frozenset({"text", "base64", "hex", "json", "repeat", "parts"})


class ScenarioError(Exception):
    """A scenario that cannot be carried out as it is written: never the fault of what is tested."""


def is_automatic(name: str) -> bool:
    """Says whether a variable gets its value from the run itself."""
    return name.startswith(AUTOMATIC)


def variable_of(value: object) -> str | None:
    """The variable's name if the whole value is one, else None."""
    if not isinstance(value, str):
        return None
    found = _WHOLE.fullmatch(value)
    if found is None:
        return None
    name = found.group(1) or found.group(2)
    return None if name in LITERALS or name in MATCHER_WORDS else name


def variables_in(value: object) -> set[str]:
    """The names of all variables in a value, at any depth."""
    if isinstance(value, str):
        if value.startswith("$") and value[1:] in MATCHER_WORDS:
            return set()
        names = {first or second for first, second in _VARIABLE.findall(value)}
        return {name for name in names if name and name not in LITERALS}
    if isinstance(value, Mapping):
        return set().union(*(variables_in(k) | variables_in(v) for k, v in value.items())) if value else set()
    if isinstance(value, list):
        return set().union(*map(variables_in, value)) if value else set()
    return set()


# A text that long is made by a broker: an address, an id. A number that large is a moment in Unix seconds,
# and what a scenario computes from it lies within some days.
_UNLIKELY_TEXT = 16
_LEAST_MOMENT = 1_000_000_000
_NEAR = 1_000_000


@dataclass
class Variables:
    """What the names of one scenario run stand for."""

    stem: str
    bound: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """The value of a variable; automatic ones come into being here."""
        if name not in self.bound:
            if not is_automatic(name):
                raise ScenarioError(f"variable ${name} is used before anything has bound it")
            self.bound[name] = f"{self.stem}{name.replace('_', '.')}"
        return self.bound[name]

    def has(self, name: str) -> bool:
        """Says whether a variable has a value."""
        return name in self.bound or is_automatic(name)

    def bind(self, name: str, value: Any) -> None:
        """Gives a variable its value."""
        self.bound[name] = value

    def resolve(self, value: Any) -> Any:
        """Replaces variables and runs generators, at any depth; payload forms stay for `payload_bytes`."""
        if isinstance(value, str):
            name = variable_of(value)
            return self.get(name) if name else self._text(value)
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if isinstance(value, Mapping):
            generator = _GENERATORS.get(next(iter(value), "")) if value else None
            resolved = {str(self.resolve(key)): self.resolve(item) for key, item in value.items()}
            return generator(resolved) if generator else resolved
        return value

    def _text(self, text: str) -> str:
        def replace(found: re.Match[str]) -> str:
            if found.group(0) == "$$":
                return "$"
            name = found.group(1) or found.group(2)
            return found.group(0) if name in LITERALS else str(self.get(name))

        return _VARIABLE.sub(replace, text)

    def reverse(self) -> dict[str, str]:
        """Texts that differ from run to run and the names they stand for, longest first: for transcripts."""
        values = {
            v: f"${k}"
            for k, v in self.bound.items()
            if isinstance(v, str) and (is_automatic(k) or len(v) >= _UNLIKELY_TEXT)
        }
        return dict(sorted(values.items(), key=lambda item: -len(item[0])))

    def moment(self, value: int) -> int | str:
        """A moment near one that a variable holds, as a distance from it: for transcripts; else the value."""
        moments = {k: v for k, v in self.bound.items() if isinstance(v, int) and abs(v) >= _LEAST_MOMENT}
        name = min(moments, key=lambda k: abs(value - moments[k]), default=None)
        if name is None or abs(value - moments[name]) > _NEAR:
            return value
        return f"${name}{value - moments[name]:+d}"


def _add(form: dict[str, Any]) -> int:
    return sum(int(part) for part in form["$add"])


def _length(form: dict[str, Any]) -> Any:
    if "of" not in form:
        return form  # the matcher of that name
    return str(form["of"]) * int(form["$length"])


def _range(form: dict[str, Any]) -> list[int]:
    return list(range(*(int(bound) for bound in form["$range"])))


def _json_text(form: dict[str, Any]) -> str:
    return json.dumps(form["$json_text"], ensure_ascii=False, separators=(",", ":"))


_GENERATORS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "$add": _add,
    "$length": _length,
    "$range": _range,
    "$json_text": _json_text,
}


def is_payload_form(value: object) -> bool:
    """Says whether a value is one of the written forms of a payload."""
    return isinstance(value, Mapping) and bool(value) and next(iter(value)) in PAYLOAD_FORMS


def payload_bytes(form: Any) -> bytes:
    """The bytes of a payload form, already resolved."""
    if form is None:
        return b""
    if isinstance(form, str):
        return form.encode()
    if isinstance(form, bytes):
        return form
    if isinstance(form, Mapping):
        if "text" in form:
            return str(form["text"]).encode()
        if "base64" in form:
            return base64.b64decode(form["base64"], validate=True)
        if "hex" in form:
            return bytes.fromhex(form["hex"])
        if "json" in form:
            return json_bytes(form["json"])
        if "repeat" in form:
            return repeated(payload_bytes(form["repeat"]), int(form["size"]))
        if "parts" in form:
            return b"".join(payload_bytes(part) for part in form["parts"])
    raise ScenarioError(
        f"{form!r} is no payload: text, base64, hex, json, repeat with size, or parts was expected"
    )


def repeated(unit: bytes, size: int) -> bytes:
    """A unit repeated and cut to a size in bytes."""
    return (unit * (size // len(unit) + 1))[:size]


def json_bytes(value: Any) -> bytes:
    """JSON as the suite itself writes it: compact, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


_DURATION = re.compile(r"^\+?(\d+)(ms|s|m|h|d)$")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def milliseconds(text: str) -> int:
    """A duration like `+11s`, `50ms` or `2h` in milliseconds."""
    found = _DURATION.match(text)
    if found is None:
        raise ScenarioError(f"{text!r} is no duration: a number with ms, s, m, h or d was expected")
    return int(found.group(1)) * _UNITS[found.group(2)]
