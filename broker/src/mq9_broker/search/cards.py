"""What the strings of a registered body are about: A2A agent cards (0.3 and 1.0), plain text, any JSON."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

import msgspec

# How much a word counts, by where it stands.
_NAME: Final = 3.0
_TITLE: Final = 2.0
_DESCRIPTION: Final = 1.5
_LABEL: Final = 1.5
_OTHER: Final = 1.0
# Of a skill's members; those of the others count as _OTHER.
_OF_SKILL: Final = {"name": _TITLE, "id": _TITLE, "tags": _LABEL, "examples": _DESCRIPTION}
# And those that say what it can do, beside its name.
_SAID: Final = frozenset(("description", "tags", "examples"))
# Members of a body that say what an agent is; the second ones where there are none of the first.
_DESCRIBING: Final = (("description", "payload"), ("desc", "summary"))

# Characters of a body that its vectors are made of; the words of all of it are indexed.
_MOST_HEAD: Final = 1_000
_MOST_SKILLS: Final = 1_000
_MOST_REST: Final = 1_000

_MARKS: Final = re.compile(r"[-_./]+")


class Card(NamedTuple):
    """The strings of a body.

    Attributes:
        fields: (text, weight) of every string.
        head: Title, description and tags: what the agent is.
        skills: What it can do.
        rest: The beginning of all other strings.
    """

    fields: list[tuple[str, float]]
    head: str
    skills: str
    rest: str

    @property
    def parts(self) -> tuple[str, str, str]:
        """All that vectors are made of."""
        return self.head, self.skills, self.rest


def read_card(body: bytes) -> Card:
    """Sort the strings of a body, names of members left out.

    Raises:
        ValueError: The body is not JSON.
    """
    root = _decode(body)
    if type(root) is not dict:
        root = {"payload": root}
    fields: list[tuple[str, float]] = []
    name, title = _text(root, "name"), _text(root, "title")
    known = {"tags"}
    if name:
        known.add("name")
        fields.append((name, _NAME))
    if title:
        known.add("title")
        fields.append((title, _TITLE))
    description: list[str] = []
    for keys in _DESCRIBING:
        for key in keys:
            if text := _text(root, key):
                known.add(key)
                description.append(text)
                fields.append((text, _DESCRIPTION))
        if description:
            break
    tags: list[str] = []
    if "tags" in root:
        _collect(root["tags"], tags)
        fields += [(tag, _LABEL) for tag in tags]
    skills: list[str] = []
    if type(root.get("skills")) is list:
        known.add("skills")
        for skill in root["skills"]:
            if said := _read_skill(skill, fields):
                skills.append(said)
    rest: list[str] = []
    for key, value in root.items():
        if key not in known:
            _collect(value, rest)
    fields += [(text, _OTHER) for text in rest]
    called = title or _MARKS.sub(" ", name)
    head = ". ".join([called, *description] if called else description)
    return Card(
        fields,
        " ".join((head, ", ".join(tags))).strip()[:_MOST_HEAD],
        ". ".join(skills)[:_MOST_SKILLS],
        " ".join(rest)[:_MOST_REST],
    )


def _read_skill(skill: Any, fields: list[tuple[str, float]]) -> str:
    if type(skill) is not dict:
        texts: list[str] = []
        _collect(skill, texts)
        fields += [(text, _DESCRIPTION) for text in texts]
        return " ".join(texts)
    said: list[str] = []
    called = _text(skill, "name") or _text(skill, "id")
    if called:
        said.append(_MARKS.sub(" ", called))
    for key, value in skill.items():
        weight = _OF_SKILL.get(key, _OTHER)
        if type(value) is str:
            fields.append((value, weight))
            if key in _SAID:
                said.append(value)
        elif value:
            texts = []
            _collect(value, texts)
            fields += [(text, weight) for text in texts]
            if key in _SAID:
                said += texts
    return ", ".join(said)


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    return value if type(value) is str else ""


def _collect(value: Any, found: list[str]) -> None:
    """Add all strings of a value, in their order."""
    if type(value) is str:
        found.append(value)
        return
    # A stack of its own: JSON nests more deeply than Python calls.
    stack = [value]
    while stack:
        value = stack.pop()
        if type(value) is str:
            found.append(value)
        elif type(value) is dict:
            stack += reversed(value.values())
        elif type(value) is list:
            stack += reversed(value)


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError:  # a number beyond the range of a double
        return json.loads(body)
