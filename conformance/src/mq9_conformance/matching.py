"""Matching: what a scenario expects against what came. A mismatch names the place and both values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from .values import (
    ScenarioError,
    Variables,
    is_payload_form,
    json_bytes,
    payload_bytes,
    variable_of,
)

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "nothing", "__bool__": lambda self: False})()
"""Stands for a key that is not there."""

Problem = str


def match(expected: Any, actual: Any, variables: Variables, path: str = "") -> list[Problem]:
    """Compares and binds; gives one sentence for each difference, none if it matches."""
    name = variable_of(expected)
    if name is not None:
        return _match_variable(name, actual, variables, path)
    if isinstance(expected, str) and expected.startswith("$") and expected[1:] in _WORDS:
        description, test = _WORDS[expected[1:]]
        return [] if test(actual) else [_difference(path, description, actual)]
    if isinstance(expected, Mapping):
        key = next(iter(expected), "")
        if isinstance(key, str) and key in _MATCHERS and not (key == "$length" and "of" in expected):
            return _MATCHERS[key](expected[key], actual, variables, path)
        if key in {"$add", "$length", "$range", "$json_text"}:
            return _equal(variables.resolve(expected), actual, path)
    if isinstance(actual, bytes):
        return _match_payload(expected, actual, variables, path)
    if isinstance(expected, Mapping):
        return _match_map(expected, actual, variables, path)
    if isinstance(expected, list):
        return _match_list(expected, actual, variables, path)
    return _equal(variables.resolve(expected), actual, path)


def _match_variable(name: str, actual: Any, variables: Variables, path: str) -> list[Problem]:
    if variables.has(name):
        bound = variables.get(name)
        if isinstance(actual, bytes) and is_payload_form(bound):
            return _match_payload(bound, actual, variables, path)
        return _equal(bound, actual, path)
    if actual is ABSENT:
        return [_difference(path, f"a value for ${name}", actual)]
    variables.bind(name, actual)
    return []


def _match_map(expected: Mapping[str, Any], actual: Any, variables: Variables, path: str) -> list[Problem]:
    if not isinstance(actual, Mapping):
        return [_difference(path, "a map", actual)]
    problems: list[Problem] = []
    for key, value in expected.items():
        known = variables.resolve(key)
        problems += match(
            value, actual.get(known, ABSENT), variables, f"{path}.{known}" if path else str(known)
        )
    return problems


def _match_list(expected: list[Any], actual: Any, variables: Variables, path: str) -> list[Problem]:
    if not isinstance(actual, list):
        return [_difference(path, "a list", actual)]
    if len(expected) != len(actual):
        return [
            _difference(path, f"{len(expected)} items ({show(variables_or(expected, variables))})", actual)
        ]
    problems: list[Problem] = []
    for index, (want, got) in enumerate(zip(expected, actual, strict=True)):
        problems += match(want, got, variables, f"{path}[{index}]")
    return problems


def variables_or(expected: Any, variables: Variables) -> Any:
    """The resolved value for a message, or the written one if a variable has no value yet."""
    try:
        return variables.resolve(expected)
    except ScenarioError:
        return expected


def _match_payload(expected: Any, actual: bytes, variables: Variables, path: str) -> list[Problem]:
    if isinstance(expected, Mapping) and next(iter(expected), "") == "json":
        try:
            value = json.loads(actual)
        except ValueError:
            return [_difference(path, "JSON", actual)]
        return match(expected["json"], value, variables, path)
    if isinstance(expected, str) or is_payload_form(expected):
        wanted = payload_bytes(variables.resolve(expected))
        return [] if wanted == actual else [_difference(path, show(wanted), actual)]
    if isinstance(expected, (int, float, bool, list)) or expected is None:
        return [_difference(path, show(expected), actual)]
    raise ScenarioError(f"{path}: {expected!r} cannot be compared with a payload")


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values in which true is not 1; a whole float equals the integer."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, bytes) and isinstance(right, str):
        return left == right.encode()
    if isinstance(left, str) and isinstance(right, bytes):
        return left.encode() == right
    return bool(left == right)


def _equal(expected: Any, actual: Any, path: str) -> list[Problem]:
    return [] if same(expected, actual) else [_difference(path, show(expected), actual)]


def _difference(path: str, expected: str, actual: Any) -> Problem:
    return f"{path or 'result'}: expected {expected}, got {show(actual)}"


def show(value: Any, limit: int = 300) -> str:
    """A value for a person, cut to a length."""
    if value is ABSENT:
        return "nothing"
    if isinstance(value, bytes):
        try:
            text = json.dumps(value.decode("utf-8"), ensure_ascii=False)
        except UnicodeDecodeError:
            text = f"bytes {value[:100].hex()}"
        return f"{text[:limit]}… ({len(value)} bytes)" if len(text) > limit else text
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    return f"{text[:limit]}…" if len(text) > limit else text


def _plain(value: Any) -> Any:
    return show(value, 80)


def _number(test: Callable[[Any, Any], bool], word: str) -> Callable[..., list[Problem]]:
    def check(bound: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
        limit = variables.resolve(bound)
        is_number = isinstance(actual, (int, float)) and not isinstance(actual, bool)
        return (
            [] if is_number and test(actual, limit) else [_difference(path, f"{word} {show(limit)}", actual)]
        )

    return check


def _regex(pattern: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
    text = actual.decode("utf-8", "replace") if isinstance(actual, bytes) else actual
    if isinstance(text, str) and re.search(str(pattern), text, re.DOTALL):
        return []
    return [_difference(path, f"text with /{pattern}/", actual)]


def _exactly(expected: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
    problems = _match_map(expected, actual, variables, path)
    if isinstance(actual, Mapping):
        known = {variables.resolve(key) for key in expected}
        problems += [
            f"{path}.{key}: not expected, got {show(actual[key])}" for key in actual if key not in known
        ]
    return problems


def _contains(expected: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
    if isinstance(expected, str):
        text = variables.resolve(expected)
        found = (isinstance(actual, str) and text in actual) or (
            isinstance(actual, bytes) and text.encode() in actual
        )
        return [] if found else [_difference(path, f"text with {show(text)}", actual)]
    return _take_each(expected, actual, variables, path)[0]


def _unordered(expected: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
    resolved = (
        variables.resolve(expected) if isinstance(expected, Mapping) or variable_of(expected) else expected
    )
    problems, rest = _take_each(resolved, actual, variables, path)
    return problems + [f"{path}: not expected, got {show(item)}" for item in rest]


def _take_each(
    expected: Any, actual: Any, variables: Variables, path: str
) -> tuple[list[Problem], list[Any]]:
    if not isinstance(actual, list):
        return [_difference(path, "a list", actual)], []
    rest, problems = list(actual), []
    for want in expected:
        for index, got in enumerate(rest):
            trial = Variables(variables.stem, dict(variables.bound))
            if not match(want, got, trial, path):
                variables.bound.update(trial.bound)
                del rest[index]
                break
        else:
            problems.append(_difference(path, f"an item {show(variables_or(want, variables))}", actual))
    return problems, rest


def _length(expected: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
    if not isinstance(actual, (list, Mapping, str, bytes)):
        return [_difference(path, f"something of length {show(expected)}", actual)]
    return match(expected, len(actual), variables, f"{path}.length")


def _not(expected: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
    trial = Variables(variables.stem, dict(variables.bound))
    if match(expected, actual, trial, path):
        return []
    return [_difference(path, f"anything but {show(variables_or(expected, variables))}", actual)]


def _one_of(expected: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
    for want in expected:
        trial = Variables(variables.stem, dict(variables.bound))
        if not match(want, actual, trial, path):
            variables.bound.update(trial.bound)
            return []
    return [_difference(path, f"one of {show(expected)}", actual)]


def _all(expected: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
    return [problem for want in expected for problem in match(want, actual, variables, path)]


def _between(expected: Any, actual: Any, variables: Variables, path: str) -> list[Problem]:
    low, high = variables.resolve(expected)
    is_number = isinstance(actual, (int, float)) and not isinstance(actual, bool)
    if is_number and low <= actual <= high:
        return []
    return [_difference(path, f"a number from {low} to {high}", actual)]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_WORDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "any": ("anything", lambda value: value is not ABSENT and value is not None),
    "absent": ("nothing", lambda value: value is ABSENT),
    "string": ("text", lambda value: isinstance(value, str)),
    "integer": ("an integer", _is_int),
    "number": ("a number", lambda value: _is_int(value) or isinstance(value, float)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "list": ("a list", lambda value: isinstance(value, list)),
    "map": ("a map", lambda value: isinstance(value, Mapping)),
}

_MATCHERS: dict[str, Callable[[Any, Any, Variables, str], list[Problem]]] = {
    "$regex": _regex,
    "$gt": _number(lambda a, b: a > b, "more than"),
    "$gte": _number(lambda a, b: a >= b, "at least"),
    "$lt": _number(lambda a, b: a < b, "less than"),
    "$lte": _number(lambda a, b: a <= b, "at most"),
    "$between": _between,
    "$exactly": _exactly,
    "$contains": _contains,
    "$unordered": _unordered,
    "$length": _length,
    "$not": _not,
    "$one_of": _one_of,
    "$all": _all,
}

MATCHERS = frozenset(_MATCHERS)
"""Keys that stand for a matcher when they are the first of a map."""

__all__ = ["ABSENT", "MATCHERS", "json_bytes", "match", "same", "show"]
