"""Prose of the specification as comments of a language: escaped, wrapped, framed, by data of the target.

Prose is plain text with paragraphs (separated by empty lines), lists (lines that start with `- `) and `code`
in backticks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mq9_codegen.layout import Style

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^a-z\s])")
_CODE = re.compile(r"`([^`\n]+)`")
_GLUE = "\x00"
_LIST_ITEM = re.compile(r"(-|[0-9]+\.) +")


@dataclass(frozen=True)
class CommentStyle:
    """How one kind of comment of a language is written.

    Attributes:
        prefix: What starts every line.
        open: What opens the comment; empty for line comments.
        close: What closes it.
        same_line: Whether the text starts on the opening line (Python docstrings).
        width: The longest line in columns.
        escapes: Texts to replace in prose, outside of code.
        code_escapes: Texts to replace inside of code.
        code: How code is written; `{text}` is the code.
        raw: Another opening for text with `raw_for` in it and without `raw_unless`; nothing is escaped then.
        not_last: Characters that may not touch the closing mark; a space goes between.
        title: How the title of a section is written; `{title}`.
        entry: How an entry of a section is written; `{label}` and `{text}`.
        entry_indent: Columns before an entry.
        entry_hang: Further columns before the second and later lines of an entry.
        summary: Whether the first sentence has to be one line with nothing else (Python docstrings); what is
            longer is cut short there and follows whole.
        first_word: `name` if a comment has to start with the name of what it documents.
    """

    prefix: str = ""
    open: str = ""
    close: str = ""
    same_line: bool = False
    width: int = 100
    escapes: Mapping[str, str] = field(default_factory=dict)
    code_escapes: Mapping[str, str] = field(default_factory=dict)
    code: str = "`{text}`"
    raw: str = ""
    raw_for: str = ""
    raw_unless: str = ""
    not_last: str = ""
    title: str = "{title}:"
    entry: str = "{label}: {text}"
    entry_indent: int = 4
    entry_hang: int = 4
    summary: bool = False
    first_word: str = ""


@dataclass(frozen=True)
class Section:
    """A titled part of a comment (`Args`, `Raises`, ...) with labelled entries."""

    title: str
    entries: tuple[tuple[str, str], ...]


Block = str | Section


def escape(text: str, style: CommentStyle) -> str:
    """Escapes prose for a comment, code and the rest each in its own way."""
    return _escape(text, style).replace(_GLUE, " ")


def _escape(text: str, style: CommentStyle) -> str:
    # Blanks inside code become a mark, so that wrapping keeps code together.
    result: list[str] = []
    end = 0
    for match in _CODE.finditer(text):
        result.append(_replace(text[end : match.start()], style.escapes))
        code = _replace(match.group(1), style.code_escapes)
        result.append(style.code.replace("{text}", code).replace(" ", _GLUE))
        end = match.end()
    result.append(_replace(text[end:], style.escapes))
    return "".join(result)


def _replace(text: str, table: Mapping[str, str]) -> str:
    if not table or not text:
        return text
    pattern = "|".join(re.escape(key) for key in sorted(table, key=len, reverse=True))
    return re.sub(pattern, lambda match: table[match.group(0)], text)


def wrap(text: str, width: int, layout: Style, first: str = "", rest: str = "") -> list[str]:
    """Wraps one paragraph at blanks; `first` starts its first line and `rest` the others."""
    room = width - layout.columns(rest)
    tokens = []
    for token in text.split():
        together = token.replace(_GLUE, " ")
        tokens.extend([together] if layout.columns(together) <= room else token.split(_GLUE))
    lines: list[str] = []
    line = first
    empty = True
    for token in tokens:
        if not empty and layout.columns(line) + 1 + layout.columns(token) > width:
            lines.append(line)
            line, empty = rest, True
        line = f"{line}{token}" if empty else f"{line} {token}"
        empty = False
    lines.append(line)
    return [line.rstrip() for line in lines]


def paragraphs(text: str) -> list[str]:
    """Splits prose into paragraphs and list items; a list item keeps its `- `."""
    result: list[str] = []
    for chunk in re.split(r"\n[ \t]*\n", text.strip()):
        current: list[str] = []
        for line in chunk.split("\n"):
            if _LIST_ITEM.match(line.strip()) and not line.startswith("    "):
                if current:
                    result.append(" ".join(current))
                current = [line.strip()]
            elif line.strip():
                current.append(line.strip())
        if current:
            result.append(" ".join(current))
    return result


def lead_with(name: str, text: str) -> str:
    """Starts prose with a name: `Gives it back.` becomes `Nack gives it back.`."""
    stripped = text.lstrip()
    if not stripped:
        return name
    if len(stripped) > 1 and stripped[0].isupper() and not stripped[1].isupper():
        stripped = stripped[0].lower() + stripped[1:]
    return f"{name} {stripped}"


def comment(blocks: Block | Iterable[Block], style: CommentStyle, layout: Style, level: int = 0) -> str:
    """Writes prose as a comment.

    Args:
        blocks: The prose: one text, or texts and sections in order; empty ones are left out.
        style: The kind of comment.
        layout: How the language counts columns and indents.
        level: Levels of indentation.

    Returns:
        All lines, indented, without a line break at the end; an empty text if there is nothing to say.
    """
    parts: Sequence[Block] = [blocks] if isinstance(blocks, (str, Section)) else list(blocks)
    margin = layout.indent * level
    texts = (
        [part] if isinstance(part, str) else [text for entry in part.entries for text in entry]
        for part in parts
    )
    everything = "\n".join(text for group in texts for text in group)
    raw = bool(style.raw) and style.raw_for in everything and style.raw_unless not in everything
    if raw:
        style = CommentStyle(**{**vars(style), "escapes": {}, "code_escapes": {}, "open": style.raw})
    room = style.width - layout.columns(margin) - layout.columns(style.prefix)
    if style.summary:
        parts = _with_summary(
            parts, style, layout, room - layout.columns(style.open) - layout.columns(style.close)
        )
    lines = _lines(parts, style, layout, room)
    if not lines:
        return ""
    if style.open:
        closing = " " if style.not_last and lines[-1].endswith(tuple(style.not_last)) else ""
        glue = "" if style.same_line else " "
        single = f"{margin}{style.open}{glue}{lines[0]}{closing or glue}{style.close.strip()}"
        if len(lines) == 1 and layout.columns(single) <= style.width:
            return single
        if len(lines) == 1 and style.same_line:
            lines = _lines(
                parts, style, layout, style.width - layout.columns(margin) - layout.columns(style.open)
            )
    body = [f"{margin}{style.prefix}{line}".rstrip() for line in lines]
    if not style.open:
        return "\n".join(body)
    if style.same_line:
        # The summary has to leave room for the opening mark.
        head = _lines(parts, style, layout, style.width - layout.columns(margin) - layout.columns(style.open))
        body = [f"{margin}{line}".rstrip() for line in head]
        body[0] = f"{margin}{style.open}{head[0]}"
        return "\n".join([*body, f"{margin}{style.close}"])
    return "\n".join([f"{margin}{style.open}", *body, f"{margin}{style.close}"])


def _with_summary(parts: Sequence[Block], style: CommentStyle, layout: Style, room: int) -> Sequence[Block]:
    """Makes the first sentence a paragraph of its own that fits on the first line."""
    texts = [part for part in parts if isinstance(part, Section) or part.strip()]
    if not texts or not isinstance(texts[0], str):
        return parts
    first, *more = paragraphs(texts[0])
    sentence, *rest = _SENTENCE.split(first, maxsplit=1)
    if layout.columns(escape(sentence, style)) > room:
        words = sentence.split()
        while words and layout.columns(escape(" ".join(words), style)) > room - 3:
            words.pop()
        return [f"{' '.join(words).rstrip(',;:.')}...", first, *more, *texts[1:]]
    return [sentence, *rest, *more, *texts[1:]]


def _lines(parts: Sequence[Block], style: CommentStyle, layout: Style, width: int) -> list[str]:
    lines: list[str] = []

    def gap() -> None:
        if lines and lines[-1]:
            lines.append("")

    for part in parts:
        if isinstance(part, Section):
            if not part.entries:
                continue
            gap()
            if style.title:
                lines.append(style.title.replace("{title}", part.title))
            for label, text in part.entries:
                indent = " " * style.entry_indent
                body = " ".join(paragraphs(_escape(text, style)))
                entry = style.entry.replace("{label}", _escape(label, style)).replace("{text}", body)
                lines.extend(wrap(entry, width, layout, indent, indent + " " * style.entry_hang))
            continue
        previous_item = False
        for paragraph in paragraphs(part):
            item = _LIST_ITEM.match(paragraph)
            if not (item and previous_item):
                gap()
            previous_item = bool(item)
            start = item.group(0) if item else ""
            lines.extend(
                wrap(_escape(paragraph[len(start) :], style), width, layout, start, " " * len(start))
            )
    while lines and not lines[-1]:
        lines.pop()
    return lines


def comment_style(data: Mapping[str, Any], width: int) -> CommentStyle:
    """Builds a style from the `comments` part of a target file."""
    return CommentStyle(**{"width": width, **data})
