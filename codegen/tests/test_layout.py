from __future__ import annotations

import ast
import subprocess

import pytest
from ruff import find_ruff_bin  # type: ignore[import-untyped]

from mq9_codegen.layout import Assign, Concat, Literal, Style, align, group, lay_out

STYLE = Style(width=110, split_strings=True)
LENGTHS = [1, 2, 5, 13, 30, 59, 60]


def quote(text: str) -> str:
    return '"' + text + '"'


def literal(text: str) -> Literal:
    return Literal(quote(text), text, quote)


def ruff_format(code: str, width: int = 110) -> str:
    command = [find_ruff_bin(), "format", "--isolated", "--config", f"line-length={width}", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout


def name(length: int) -> str:
    return ("abcdefghij_" * 6)[:length].rstrip("_") + ("x" if ("abcdefghij_" * 6)[length - 1] == "_" else "")


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("length", LENGTHS)
def test_signatures_pass_the_formatter_of_python(length: int, count: int) -> None:
    items = [f"{name(length)}{index}: int" for index in range(count)]
    signature = group(f"async def {name(length)}(", items, f") -> {name(length).title()}:")
    code = lay_out(signature, STYLE) + "\n    return None\n"
    assert ruff_format(code) == code


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("length", LENGTHS)
def test_nested_literals_pass_the_formatter_of_python(length: int, depth: int) -> None:
    value = group("[", [literal(name(length)), "1", "None"], "]", kind="array")
    for _ in range(depth):
        value = group(
            "{", [Concat((f'"{name(length)}": ', value)), Concat(('"k": ', literal(name(length))))], "}"
        )
    code = "VALUE = " + lay_out(value, STYLE, first=8) + "\n"
    assert ruff_format(code) == code
    ast.parse(code)


@pytest.mark.parametrize("length", LENGTHS)
def test_calls_within_calls_pass_the_formatter_of_python(length: int) -> None:
    inner = group(f"{name(length)}(", [name(length), name(length)], ")")
    outer = group(f"self.{name(length)}(", [inner, f"{name(length)}=None"], ")")
    code = "def f(self):\n    return " + lay_out(outer, STYLE, level=1, first=11) + "\n"
    assert ruff_format(code) == code


@pytest.mark.parametrize("text", ["word " * 60, "x" * 300, "ab " * 200 + "y" * 150, "漢字 " * 80])
def test_long_string_literals_are_cut_and_pass_the_formatter_of_python(text: str) -> None:
    whole = group("call(", ["1", literal(text)], ")")
    code = lay_out(whole, STYLE) + "\n"
    assert all(STYLE.columns(line) <= 110 for line in code.splitlines())
    assert ruff_format(code) == code
    call = ast.parse(code).body[0]
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    assert ast.literal_eval(call.value.args[1]) == text


def test_what_fits_exactly_stays_on_the_line() -> None:
    items = ["a" * 10, "b" * 10]
    assert lay_out(group("f(", items, ")"), Style(width=25)) == "f(aaaaaaaaaa, bbbbbbbbbb)"
    assert lay_out(group("f(", items, ")"), Style(width=24)) == "f(\n    aaaaaaaaaa,\n    bbbbbbbbbb,\n)"


def test_columns_kept_free_count() -> None:
    assert "\n" in lay_out(group("f(", ["a" * 10, "b" * 10], ")"), Style(width=25), last=1)


def test_an_inner_bound_breaks_what_would_fit_the_line() -> None:
    style = Style(width=100, inner=(("struct", 18),))
    assert "\n" in lay_out(group("A {", ["field: 1", "other: 22"], "}", pad=" ", kind="struct"), style)
    assert lay_out(group("A {", ["a: 1", "b: 22"], "}", pad=" ", kind="struct"), style) == "A { a: 1, b: 22 }"


def test_no_trailing_separator_where_the_language_forbids_it() -> None:
    assert (
        lay_out(group("f(", ["a" * 20], ")", trailing=False), Style(width=20))
        == "f(\n    aaaaaaaaaaaaaaaaaaaa\n)"
    )


def test_wide_characters_take_two_columns() -> None:
    assert Style().columns("漢字") == 4
    assert Style().columns("e\u0301") == 1


def test_columns_are_aligned_as_gofmt_does() -> None:
    rows = [
        ["A", "int", "// a"],
        ["Long", "string", ""],
        ["B", "map[string]int", "`b`"],
        ["// c"],
        ["Cee", "int"],
    ]
    expected = ["A    int // a", "Long string", "B    map[string]int `b`", "// c", "Cee int"]
    assert align(rows) == expected


def test_nothing_between_brackets_stays_together() -> None:
    assert lay_out(group("f(", [], ") -> None:"), Style(width=5)) == "f() -> None:"


def test_hanging_groups_continue_deeper_and_keep_their_closing_bracket() -> None:
    style = Style(width=30, indent="  ", hang=2)
    assert lay_out(group("f(", ["aaaa", "bbbb"], ");"), style, 1) == "f(aaaa, bbbb);"
    next_line = lay_out(group("function(", ["aaaaaaaa", "bbbbbbbb"], ");"), style, 1)
    assert next_line == "function(\n      aaaaaaaa, bbbbbbbb);"
    one_each = lay_out(group("f(", ["aaaaaaaa", "bbbbbbbb", "cccccccc"], ");"), style, 1)
    assert one_each == "f(\n      aaaaaaaa,\n      bbbbbbbb,\n      cccccccc);"
    inner = group("gggggggg(", ["aaaaaaaa", "bbbbbbbb"], ")")
    value = lay_out(Assign("int x = ", inner, ";"), style, 1)
    assert value == "int x =\n      gggggggg(\n          aaaaaaaa, bbbbbbbb);"
