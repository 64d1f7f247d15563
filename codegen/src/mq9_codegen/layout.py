"""The one width-aware layout helper: breaks calls, signatures and literals as formatters do.

ruff format, prettier and rustfmt agree on the rule that matters: what fits on the line stays on it, else
every item of the outermost bracket gets a line of its own, with a trailing comma, and the rule starts again
inside. A template therefore builds a small document of nested groups and asks for it to be laid out; it
never counts columns. What differs between languages is data (`Style`): the width, the indentation, the
narrower bounds that rustfmt puts on what stands between two brackets, and whether a trailing comma is
allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """How one language breaks lines.

    Attributes:
        width: The longest line, in columns.
        indent: One level of indentation.
        tab_width: Columns of a tab, if `indent` has tabs.
        trailing: What follows the last item of a broken group.
        inner: For kinds of groups (see `Group.kind`), the longest text between the brackets that may stay on
            one line.
        assign: What happens to an assignment whose first line is too long even when its value is broken:
            `parens` puts the value in brackets of its own, `indent` on the next line; empty leaves it.
        split_strings: Whether adjacent literals in parentheses are one string, so that a long literal may be
            cut.
        hang: 0 puts items one a line and the closing bracket on a line of its own. Otherwise the levels of
            indentation that a continuation gets, as google-java-format has it: all items on the next line if
            they fit there, else one a line, with the closing bracket after the last; a too long assignment
            breaks after its operator.
    """

    width: int = 100
    indent: str = "    "
    tab_width: int = 4
    trailing: str = ","
    inner: tuple[tuple[str, int], ...] = ()
    split_strings: bool = False
    assign: str = ""
    hang: int = 0

    def columns(self, text: str) -> int:
        """Columns of a text without line breaks; East Asian wide characters take two."""
        return (
            len(text.expandtabs(self.tab_width))
            if text.isascii()
            else sum(_columns(c, self.tab_width) for c in text)
        )

    def inner_width(self, kind: str) -> int:
        """The longest text that a group of this kind may have between its brackets on one line."""
        return dict(self.inner).get(kind, self.width)


def _columns(char: str, tab_width: int) -> int:
    import unicodedata  # noqa: PLC0415 - rare: only text that is not ASCII

    if char == "\t":
        return tab_width
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


@dataclass(frozen=True)
class Group:
    """Items between brackets: on one line if they fit, else one a line.

    Attributes:
        open: The text up to and with the opening bracket.
        items: What stands between.
        close: The closing bracket and what belongs to it.
        separator: What stands between two items.
        pad: What stands inside the brackets when all is on one line (`{ a }`).
        kind: Names the bound of `Style.inner` that applies (`call`, `array`, `struct`, ...).
        trailing: Whether the separator follows the last item of a broken group; None = as the style says.
        force: Break even if it fits.
        broken: What to open and close with when broken, where that differs (`from x import a` and `from x
            import (`).
    """

    open: str
    items: tuple[Doc, ...]
    close: str
    separator: str = ","
    pad: str = ""
    kind: str = "call"
    trailing: bool | None = None
    force: bool = False
    broken: tuple[str, str] | None = None


@dataclass(frozen=True)
class Chain:
    """A condition of operands and operators: on one line, or in brackets with an operator leading each.

    Attributes:
        open: What stands before it (`if `).
        text: The condition on one line.
        close: What stands after it (`:`).
        operators: Operators by precedence, the weakest first: ((`and`,), (`is not`, `==`)). Where a line
            between weak ones fits, stronger ones stay inside it.
        brackets: What it is put in when it is broken.
    """

    open: str
    text: str
    close: str
    operators: tuple[tuple[str, ...], ...]
    brackets: tuple[str, str] = ("(", ")")


@dataclass(frozen=True)
class Concat:
    """Parts that follow each other without a space."""

    parts: tuple[Doc, ...]


@dataclass(frozen=True)
class Literal:
    """A string literal, whole, and the same in pieces that may stand on lines of their own."""

    whole: str
    text: str
    quote: object = None


@dataclass(frozen=True)
class Assign:
    """A left side with its operator and blank (`x = `) and the value on the right."""

    left: str
    right: Doc
    close: str = ""


Doc = str | Group | Chain | Concat | Literal | Assign


def flat(doc: Doc) -> str | None:
    """The document on one line, or None if something in it must be broken."""
    if isinstance(doc, str):
        return None if "\n" in doc else doc
    if isinstance(doc, Literal):
        return doc.whole
    if isinstance(doc, Chain):
        return f"{doc.open}{doc.text}{doc.close}"
    if isinstance(doc, Assign):
        right = flat(doc.right)
        return None if right is None else f"{doc.left}{right}{doc.close}"
    if isinstance(doc, Concat):
        parts = [flat(part) for part in doc.parts]
        return None if None in parts else "".join(part for part in parts if part is not None)
    if doc.force and doc.items:
        return None
    items = [flat(item) for item in doc.items]
    if None in items:
        return None
    inner = f"{doc.separator} ".join(item for item in items if item is not None)
    return f"{doc.open}{doc.pad}{inner}{doc.pad}{doc.close}" if inner else f"{doc.open}{doc.close}"


def lay_out(doc: Doc, style: Style, level: int = 0, first: int | None = None, last: int = 0) -> str:
    """Lays a document out.

    Args:
        doc: The document.
        style: How the language breaks lines.
        level: The indentation of the line that the document stands on, in levels.
        first: The column where the document starts on its first line; None = right after the indentation.
        last: Columns that must stay free behind the document's last line.

    Returns:
        The text; lines after the first are indented, the first is not.
    """
    margin = style.indent * level
    column = style.columns(margin) if first is None else first
    return _lay_out(doc, style, level, column, last)


def _fits(doc: Doc, style: Style, column: int, last: int) -> str | None:
    text = flat(doc)
    if text is None or column + style.columns(text) + last > style.width:
        return None
    return text if _inner_fits(doc, style) else None


def _inner_fits(doc: Doc, style: Style) -> bool:
    if isinstance(doc, Assign):
        return _inner_fits(doc.right, style)
    if isinstance(doc, Concat):
        return all(_inner_fits(part, style) for part in doc.parts)
    if not isinstance(doc, Group):
        return True
    text = flat(doc) or ""
    inner = style.columns(text) - style.columns(doc.open) - style.columns(doc.close) - 2 * len(doc.pad)
    return inner <= style.inner_width(doc.kind) and all(_inner_fits(item, style) for item in doc.items)


def _lay_out(doc: Doc, style: Style, level: int, column: int, last: int) -> str:
    text = _fits(doc, style, column, last)
    if text is not None:
        return text
    if isinstance(doc, str):
        return doc
    if isinstance(doc, Literal):
        return _lay_out_literal(doc, style, level)
    if isinstance(doc, Chain):
        return _lay_out_chain(doc, style, level)
    if isinstance(doc, Assign):
        return _lay_out_assign(doc, style, level, column, last)
    if isinstance(doc, Concat):
        return _lay_out_concat(doc, style, level, column, last)
    if not doc.items:
        return doc.open + doc.close
    if style.hang:
        return _lay_out_hanging(doc, style, level, last)
    inside = style.indent * (level + 1)
    start = style.columns(inside)
    trailing = bool(style.trailing) if doc.trailing is None else doc.trailing
    opening, closing = doc.broken or (doc.open, doc.close)
    lines = [opening]
    for index, item in enumerate(doc.items):
        is_last = index == len(doc.items) - 1
        separator = doc.separator if not is_last or trailing else ""
        lines.append(inside + _lay_out(item, style, level + 1, start, len(separator)) + separator)
    lines.append(style.indent * level + closing)
    return "\n".join(lines)


def _lay_out_hanging(doc: Group, style: Style, level: int, last: int) -> str:
    below = level + style.hang
    inside = style.indent * below
    start = style.columns(inside)
    after = style.columns(doc.close) + last
    items = [flat(item) for item in doc.items]
    if not doc.force and None not in items:
        line = f"{doc.separator} ".join(item for item in items if item is not None)
        if start + style.columns(line) + after <= style.width:
            return f"{doc.open}\n{inside}{line}{doc.close}"
    ends = [style.columns(doc.separator)] * (len(items) - 1) + [after]
    parts = [_lay_out(item, style, below, start, end) for item, end in zip(doc.items, ends, strict=True)]
    return doc.open + "\n" + f"{doc.separator}\n".join(inside + part for part in parts) + doc.close


def _lay_out_assign(doc: Assign, style: Style, level: int, column: int, last: int) -> str:
    if style.hang:
        below = level + style.hang
        inside = style.indent * below
        after = style.columns(doc.close) + last
        value = _lay_out(doc.right, style, below, style.columns(inside), after)
        return f"{doc.left.rstrip()}\n{inside}{value}{doc.close}"
    start = column + style.columns(doc.left)
    after = style.columns(doc.close) + last
    first_line = start + _head((doc.right,), style)
    if not style.assign or first_line <= style.width:
        return doc.left + _lay_out(doc.right, style, level, start, after) + doc.close
    inside = style.indent * (level + 1)
    if style.assign == "indent":
        value = _lay_out(doc.right, style, level + 1, style.columns(inside), after)
        return f"{doc.left.rstrip()}\n{inside}{value}{doc.close}"
    value = _lay_out(doc.right, style, level + 1, style.columns(inside), 0)
    return f"{doc.left}(\n{inside}{value}\n{style.indent * level}){doc.close}"


def _lay_out_chain(doc: Chain, style: Style, level: int) -> str:
    inside = style.indent * (level + 1)
    room = style.width - style.columns(inside)
    lines = _split_chain(doc.text, doc.operators, style, room)
    body = "".join(f"{inside}{line}\n" for line in lines)
    return f"{doc.open}{doc.brackets[0]}\n{body}{style.indent * level}{doc.brackets[1]}{doc.close}"


def _split_chain(text: str, operators: tuple[tuple[str, ...], ...], style: Style, room: int) -> list[str]:
    """Breaks before the weakest operators; a piece that is still too long, before the next stronger ones."""
    if not operators:
        return [text]
    words = "|".join(re.escape(operator) for operator in operators[0])
    pieces = re.split(rf" (?=(?:{words}) )", text)
    result: list[str] = []
    for piece in pieces:
        long = style.columns(piece) > room or len(pieces) == 1
        result.extend(_split_chain(piece, operators[1:], style, room) if long else [piece])
    return result


def _lay_out_concat(doc: Concat, style: Style, level: int, column: int, last: int) -> str:
    # The space that a part must leave free is what follows it up to the next place where a line may break:
    # of a group that will be broken, that is its opening bracket.
    result: list[str] = []
    for index, part in enumerate(doc.parts):
        after = (
            last
            if index == len(doc.parts) - 1
            else _head(doc.parts[index + 1 :], style)
            + (last if all(isinstance(rest, str) for rest in doc.parts[index + 1 :]) else 0)
        )
        text = _lay_out(part, style, level, column, after)
        result.append(text)
        lines = text.split("\n")
        column = style.columns(lines[-1]) if len(lines) > 1 else column + style.columns(text)
    return "".join(result)


def _head(parts: Sequence[Doc], style: Style) -> int:
    total = 0
    for part in parts:
        if isinstance(part, str):
            total += style.columns(part)
        elif isinstance(part, Literal):
            return total + style.columns(part.whole)
        else:
            return total + _head_of(part, style)
    return total


def _head_of(doc: Group | Chain | Concat | Assign, style: Style) -> int:
    if isinstance(doc, Concat):
        return _head(doc.parts, style)
    if isinstance(doc, Assign):
        return style.columns(doc.left)
    return style.columns(doc.open)


def _lay_out_literal(doc: Literal, style: Style, level: int) -> str:
    if not style.split_strings or not callable(doc.quote):
        return doc.whole
    inside = style.indent * (level + 1)
    room = style.width - style.columns(inside)
    pieces: list[str] = []
    rest = doc.text
    while rest:
        # The longest start of the rest that fits, cut after a space where there is one.
        length = len(rest)
        while length > 1 and style.columns(doc.quote(rest[:length])) > room:
            length = max(1, min(length - 1, length * room // max(1, style.columns(doc.quote(rest[:length])))))
        if length < len(rest) and " " in rest[1:length]:
            length = rest.rindex(" ", 1, length) + 1
        pieces.append(doc.quote(rest[:length]))
        rest = rest[length:]
    return "(\n" + "".join(f"{inside}{piece}\n" for piece in pieces) + style.indent * level + ")"


def group(open_: str, items: Iterable[Doc], close: str, **options: object) -> Group:
    """Builds a `Group` from any iterable of items."""
    return Group(open_, tuple(items), close, **options)  # type: ignore[arg-type]


def chain(open_: str, text: str, close: str, *operators: Sequence[str]) -> Chain:
    """Builds a `Chain`; `operators` are lists, the weakest first."""
    return Chain(open_, text, close, tuple(tuple(level) for level in operators))


def align(rows: Iterable[Sequence[str]], gap: str = " ") -> list[str]:
    """Pads columns as gofmt does with adjacent lines.

    A cell counts for the width of its column only where another one follows it, and only together with the
    lines above and below for which that is so too. Empty last cells add nothing; a row of one cell (a
    comment) ends every column.
    """
    table = [list(row) for row in rows]
    for row in table:
        while row and not row[-1]:
            row.pop()
    for column in range(max((len(row) for row in table), default=0) - 1):
        block: list[list[str]] = []
        for row in [*table, []]:
            if len(row) > column + 1:
                block.append(row)
                continue
            width = max((len(member[column]) for member in block), default=0)
            for member in block:
                member[column] = member[column].ljust(width)
            block = []
    return [gap.join(row) for row in table]
