"""YAML files with the line of every value: what every later step needs to say `file:line`.

Only the JSON part of YAML is accepted: mappings with text keys, lists, text, numbers, true, false, null.
Aliases, tags, dates and the many spellings of booleans are mistakes here, because readers in other languages
read them differently.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mq9_codegen.problems import Path, Problem

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")
_ODD_NUMBER = re.compile(
    r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])*\Z|[-+]?0[xob][0-9A-Fa-f_]+\Z|[-+]?\.[0-9]+\Z|[-+]?\.(inf|nan)\Z", re.I
)
_ODD_BOOLEAN = frozenset(
    [
        "yes",
        "Yes",
        "YES",
        "no",
        "No",
        "NO",
        "on",
        "On",
        "ON",
        "off",
        "Off",
        "OFF",
        "True",
        "TRUE",
        "False",
        "FALSE",
        "Null",
        "NULL",
    ]
)
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)
_MAX_DEPTH = 40


@dataclass
class Document:
    """One YAML file.

    Attributes:
        file: The name to show in messages.
        data: The content as plain Python values.
        lines: The line of every value (of the key, for members of a mapping), by its path.
        raw: The bytes of the file; they are what the specification's hash is made of.
    """

    file: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    raw: bytes = b""

    def line(self, path: Path) -> int:
        """The line of the value at `path`, or of the nearest value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, message: str, expected: str = "") -> Problem:
        """A problem at the value at `path`."""
        return Problem(self.file, self.line(path), message, expected)


def load_document(path: FilePath, shown_as: str, problems: list[Problem]) -> Document | None:
    """Reads one YAML file; adds mistakes to `problems`, and gives None if the file is of no use then."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        problems.append(Problem(shown_as, 0, f"cannot be read: {error.strerror or error}"))
        return None
    return parse_document(raw, shown_as, problems)


def parse_document(raw: bytes, shown_as: str, problems: list[Problem]) -> Document | None:
    """Like `load_document`, for content that is in memory already."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        problems.append(Problem(shown_as, line, "is not valid UTF-8"))
        return None
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        problems.append(Problem(shown_as, mark.line + 1 if mark else 1, f"is not YAML: {reason}"))
        return None
    except (RecursionError, ValueError) as error:
        problems.append(
            Problem(shown_as, 1, f"is not YAML that can be read: {' '.join(str(error).split())[:100]}")
        )
        return None
    finally:
        if loader is not None:
            loader.dispose()
    if root is None:
        problems.append(Problem(shown_as, 1, "is empty", "a YAML mapping"))
        return None
    document = Document(shown_as, None, raw=raw)
    before = len(problems)
    document.data = _convert(root, (), document, problems, set(), 0)
    # A file with mistakes of this kind has an unreliable shape; checking it further would only add noise.
    return document if len(problems) == before else None


def _convert(
    node: Node, path: Path, document: Document, problems: list[Problem], seen: set[int], depth: int
) -> Any:
    line = node.start_mark.line + 1
    document.lines.setdefault(path, line)
    if id(node) in seen:
        problems.append(
            Problem(
                document.file,
                document.lines[path],
                "is used again by an alias (`*name`)",
                "the content, written out",
            )
        )
        return None
    seen.add(id(node))
    if depth > _MAX_DEPTH:
        problems.append(Problem(document.file, line, f"is nested deeper than {_MAX_DEPTH}"))
        return None
    if isinstance(node, ScalarNode):
        return _scalar(node, line, document, problems)
    if isinstance(node, SequenceNode):
        if node.tag != "tag:yaml.org,2002:seq":
            problems.append(Problem(document.file, line, f"has the tag {node.tag}", "a list without a tag"))
        return [
            _convert(item, (*path, index), document, problems, seen, depth + 1)
            for index, item in enumerate(node.value)
        ]
    assert isinstance(node, MappingNode)
    if node.tag != "tag:yaml.org,2002:map":
        problems.append(Problem(document.file, line, f"has the tag {node.tag}", "a mapping without a tag"))
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            problems.append(Problem(document.file, key_line, "has a key that is not text", "a text key"))
            continue
        key = key_node.value
        if not key_node.style and key == "<<":
            problems.append(
                Problem(document.file, key_line, "uses a merge key `<<`", "every key written out")
            )
            continue
        place = (*path, key)
        if key in result:
            first = document.lines[place]
            problems.append(
                Problem(document.file, key_line, f"key '{key}' appears twice (first in line {first})")
            )
            continue
        document.lines[place] = key_line
        result[key] = _convert(value_node, place, document, problems, seen, depth + 1)
    return result


def _scalar(node: ScalarNode, line: int, document: Document, problems: list[Problem]) -> Any:
    text: str = node.value
    if node.style or node.tag == "!":
        return text
    if node.tag not in _PLAIN_TAGS:
        problems.append(Problem(document.file, line, f"has the tag {node.tag}", "a value without a tag"))
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.match(text):
        if len(text) > 40:
            problems.append(
                Problem(
                    document.file, line, "is a number of more than 40 digits", "a smaller number, or quotes"
                )
            )
            return text
        return int(text)
    if _FLOAT.match(text):
        number = float(text)
        if math.isinf(number):
            problems.append(
                Problem(document.file, line, f"number {text[:40]} is too large", "a finite number, or quotes")
            )
        return number
    if text in _ODD_BOOLEAN:
        problems.append(
            Problem(
                document.file,
                line,
                f"'{text}' is read differently by YAML readers",
                "true, false, null or quotes",
            )
        )
    elif _ODD_NUMBER.match(text):
        problems.append(
            Problem(
                document.file,
                line,
                f"'{text}' is read differently by YAML readers",
                "a decimal number or quotes",
            )
        )
    return text
