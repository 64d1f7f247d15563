"""Names: splitting into words, putting together in the casing of a language, avoiding its reserved words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def words(name: str) -> tuple[str, ...]:
    """Splits a name into lower-case words; digits stay with the word before them.

    `mail_address`, `mail-address`, `mail.address`, `mailAddress` and `MailAddress` all give `("mail",
    "address")`.
    """
    result: list[str] = []
    for chunk in re.split(r"[^A-Za-z0-9]+", name):
        parts = _PARTS.findall(chunk)
        for index, part in enumerate(parts):
            if part.isdigit() and index > 0:
                result[-1] += part
            else:
                result.append(part.lower())
    return tuple(result)


def _pascal(parts: Iterable[str], acronyms: frozenset[str]) -> str:
    return "".join(part.upper() if part in acronyms else part[:1].upper() + part[1:] for part in parts)


def _camel(parts: Iterable[str], acronyms: frozenset[str]) -> str:
    first, *rest = tuple(parts) or ("",)
    return first + _pascal(rest, acronyms)


CASINGS: dict[str, Callable[[Iterable[str], frozenset[str]], str]] = {
    "snake": lambda parts, _: "_".join(parts),
    "screaming": lambda parts, _: "_".join(parts).upper(),
    "kebab": lambda parts, _: "-".join(parts),
    "dot": lambda parts, _: ".".join(parts),
    "flat": lambda parts, _: "".join(parts),
    "camel": _camel,
    "pascal": _pascal,
    "title": lambda parts, acronyms: " ".join(
        part.upper() if part in acronyms else part[:1].upper() + part[1:] for part in parts
    ),
}
"""Every casing that a target may name."""


def cased(name: str | Iterable[str], casing: str, acronyms: frozenset[str] = frozenset()) -> str:
    """Puts a name (or its words) into a casing; `acronyms` are the lower-case words to write in capitals."""
    parts = words(name) if isinstance(name, str) else tuple(name)
    return CASINGS[casing](parts, acronyms)
