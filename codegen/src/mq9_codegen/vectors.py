"""Wire vectors in files of their own (`vectors/<operation>.yaml`), and the short forms of long values.

Any vector may write a long value short; targets see it written out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mq9_codegen.problems import Path, Problem, nearest, shown
from mq9_codegen.source import Document

_LONGEST = 1_000_000
_DEEPEST = 200


@dataclass
class JoinedDocument(Document):
    """An operation's file whose list of vectors goes on in another file; problems name the right one.

    Attributes:
        more: The other file.
        start: How many vectors stand in the operation's own file.
    """

    more: Document = field(default_factory=lambda: Document("", None))
    start: int = 0

    def problem(self, path: Path, message: str, expected: str = "") -> Problem:
        """A problem at the value at `path`, in the file where that value stands."""
        if len(path) > 1 and path[0] == "vectors" and isinstance(path[1], int) and path[1] >= self.start:
            return self.more.problem(("vectors", path[1] - self.start, *path[2:]), message, expected)
        return super().problem(path, message, expected)


def join(own: Document, more: Document) -> JoinedDocument:
    """An operation's file together with its vectors in another file."""
    vectors = own.data.get("vectors", [])
    odd = [{**vector, "odd": True} for vector in more.data["vectors"]]
    data = {**own.data, "vectors": [*vectors, *odd]}
    return JoinedDocument(own.file, data, own.lines, own.raw, more=more, start=len(vectors))


def expand_vectors(document: Document, problems: list[Problem]) -> None:
    """Writes out the short forms of long values in the vectors of a document.

    They are `{$repeat: ab, times: 3}` and `{$join: [a, …]}` (texts), `{$range: [0, 3]}` (numbers, the end
    excluded), `{$each: [1, 4], text: "t{}"}` (texts with those numbers in them) and `{$nest: 3}` (so many
    lists inside each other).
    """
    vectors = document.data.get("vectors") if isinstance(document.data, dict) else None
    if isinstance(vectors, list):
        document.data = {**document.data, "vectors": _expand(vectors, ("vectors",), document, problems)}


def _expand(value: Any, path: Path, document: Document, problems: list[Problem]) -> Any:
    if isinstance(value, list):
        return [_expand(item, (*path, index), document, problems) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    inner = {key: _expand(item, (*path, key), document, problems) for key, item in value.items()}
    name = next((key for key in inner if key.startswith("$")), None)
    if name is None:
        return inner
    form = _FORMS.get(name)
    if form is None:
        message = f"unknown short form '{name}'{nearest(name, _FORMS)}"
        problems.append(document.problem((*path, name), message, "one of " + ", ".join(_FORMS)))
        return inner
    try:
        return form(inner)
    except (KeyError, TypeError, ValueError):
        problems.append(
            document.problem((*path, name), f"{shown(inner[name])} does not suit {name}", _WRITTEN[name])
        )
        return inner


def _only(form: Mapping[str, Any], *keys: str) -> list[Any]:
    if set(form) != set(keys):
        raise ValueError
    return [form[key] for key in keys]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LONGEST:
        raise ValueError
    return value


def _numbers(value: Any) -> range:
    first, end = value
    return range(_count(first), _count(end))


def _repeat(form: Mapping[str, Any]) -> str:
    text, times = _only(form, "$repeat", "times")
    _count(len(_text(text)) * _count(times))
    return _text(text) * _count(times)


def _join(form: Mapping[str, Any]) -> str:
    (parts,) = _only(form, "$join")
    return "".join(_text(part) for part in parts)


def _range(form: Mapping[str, Any]) -> list[int]:
    (bounds,) = _only(form, "$range")
    return list(_numbers(bounds))


def _each(form: Mapping[str, Any]) -> list[str]:
    bounds, text = _only(form, "$each", "text")
    return [_text(text).replace("{}", str(number)) for number in _numbers(bounds)]


def _nest(form: Mapping[str, Any]) -> list[Any]:
    (depth,) = _only(form, "$nest")
    result: list[Any] = []
    if _count(depth) > _DEEPEST:
        raise ValueError
    for _ in range(depth - 1):
        result = [result]
    return result


_FORMS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "$repeat": _repeat,
    "$join": _join,
    "$range": _range,
    "$each": _each,
    "$nest": _nest,
}
_WRITTEN = {
    "$repeat": "{$repeat: ab, times: 128}",
    "$join": "{$join: [a, b]}, all of them texts",
    "$range": "{$range: [0, 1000]}",
    "$each": '{$each: [1, 65], text: "t{}"}',
    "$nest": "{$nest: 63}",
}
