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
    def everything(self) -> str:
        """All that vectors are made of."""
        return ". ".join(part for part in (self.head, self.skills, self.rest) if part)


def read_card(body: bytes) -> Card:
    """Sort the strings of a body, names of members left out.

    Raises:
        ValueError: The body is not JSON.
    """
    root = _decode(body)
    if not isinstance(root, dict):
        root = {"payload": root}
    fields: list[tuple[str, float]] = []
    name, title = _text(root, "name"), _text(root, "title")
    known = {"tags"}
    if name:
        known.add("name")
    if title:
        known.add("title")
    description: list[str] = []
    for keys in _DESCRIBING:
        for key in keys:
            if text := _text(root, key):
                known.add(key)
                description.append(text)
        if description:
            break
    tags = _strings(root.get("tags"))
    if name:
        fields.append((name, _NAME))
    if title:
        fields.append((title, _TITLE))
    fields += [(text, _DESCRIPTION) for text in description]
    fields += [(tag, _LABEL) for tag in tags]
    skills: list[str] = []
    if isinstance(root.get("skills"), list):
        known.add("skills")
        for skill in root["skills"]:
            skills.append(_read_skill(skill, fields))
    rest: list[str] = []
    for key, value in root.items():
        if key not in known:
            rest += _strings(value)
    fields += [(text, _OTHER) for text in rest]
    called = title or _MARKS.sub(" ", name)
    head = ". ".join(text for text in (called, *description) if text)
    return Card(
        fields,
        " ".join((head, ", ".join(tags))).strip()[:_MOST_HEAD],
        ". ".join(skill for skill in skills if skill)[:_MOST_SKILLS],
        " ".join(rest)[:_MOST_REST],
    )


def _read_skill(skill: Any, fields: list[tuple[str, float]]) -> str:
    if not isinstance(skill, dict):
        texts = _strings(skill)
        fields += [(text, _DESCRIPTION) for text in texts]
        return " ".join(texts)
    said: list[str] = []
    called = _text(skill, "name") or _text(skill, "id")
    if called:
        said.append(_MARKS.sub(" ", called))
    for key, value in skill.items():
        weight = _OF_SKILL.get(key, _OTHER)
        texts = _strings(value)
        for text in texts:
            fields.append((text, weight))
        if key in ("description", "tags", "examples"):
            said += texts
    return ", ".join(said)


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    found: list[str] = []
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            stack += reversed(value.values())
        elif isinstance(value, list):
            stack += reversed(value)
    return found


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError:  # a number beyond the range of a double
        return json.loads(body)
