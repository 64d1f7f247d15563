from __future__ import annotations

import ast
import dataclasses

import pytest

from mq9_codegen.comments import CommentStyle, Section, comment, lead_with, paragraphs
from mq9_codegen.layout import Style
from mq9_codegen.target import LANGUAGES, load_target

NASTY = [
    'Ends with a quote "',
    "Ends with a backslash \\",
    'Three """ quotes and a \\ backslash.',
    'Three """ quotes.',
    "A raw \\n and \\u0041 and \\N{BULLET}.",
    "漢字 and naïve.",
    "%s {x} ${x} {{ x }} */ /// <T> `a b` ' ''' and a lone ` here.",
    '"',
    "\\",
]
STYLE = Style(width=110)


@pytest.fixture(scope="module")
def python_style(tmp_path_factory: pytest.TempPathFactory) -> CommentStyle:
    folder = tmp_path_factory.mktemp("targets") / "toy"
    folder.mkdir()
    text = 'target: toy\ndoc: x\nextends: python\nout: x\nowns: ["*"]\nfiles: [{template: x, path: x}]\n'
    (folder / "target.yaml").write_text(text)
    (folder / "x").write_text("x")
    assert (LANGUAGES / "python.yaml").is_file()
    return load_target(folder).comments["doc"]


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("level", [0, 1, 3])
def test_prose_survives_a_python_docstring(python_style: CommentStyle, text: str, level: int) -> None:
    block = comment(text, python_style, STYLE, level)
    docstring = ast.literal_eval(block.strip())
    assert " ".join(docstring.split()) == " ".join(text.split())


@pytest.mark.parametrize("text", NASTY)
def test_long_prose_with_sections_survives_a_python_docstring(python_style: CommentStyle, text: str) -> None:
    prose = (text + " ") * 12
    block = comment([prose, Section("Args", (("x", prose), ("y", "Short.")))], python_style, STYLE, 1)
    assert all(STYLE.columns(line) <= 110 for line in block.splitlines())
    docstring = ast.literal_eval(block.strip())
    expected = f"{prose} Args: x: {prose} y: Short."
    # A first sentence that is too long for one line is cut short there, and follows whole.
    assert " ".join(docstring.split()).endswith(" ".join(expected.split()))
    assert docstring.split("\n")[0].endswith((".", "!", "?")) or len(text) < 3


def test_line_comments_wrap_at_the_width() -> None:
    style = CommentStyle(prefix="// ", width=30)
    assert comment("One two three four five six seven.", style, Style(), 1).split("\n") == [
        "    // One two three four five",
        "    // six seven.",
    ]


def test_block_comments_have_one_line_where_it_fits() -> None:
    style = CommentStyle(open="/**", prefix=" * ", close=" */", escapes={"*/": "*\\/"}, width=40)
    assert comment("Fits */ here.", style, Style()) == "/** Fits *\\/ here. */"


def test_code_is_kept_together_and_has_escapes_of_its_own() -> None:
    style = CommentStyle(
        prefix="/// ", escapes={"<": "&lt;"}, code="<c>{text}</c>", code_escapes={"<": "(lt)"}, width=24
    )
    block = comment("Say `a <b> c d` and <T>.", style, Style())
    assert block.split("\n") == ["/// Say", "/// <c>a (lt)b> c d</c>", "/// and &lt;T>."]


def test_lists_hang_and_paragraphs_are_separated() -> None:
    style = CommentStyle(prefix="# ", width=24)
    text = "Intro\nof two lines.\n\n- one item that is long\n- two"
    assert comment(text, style, Style()).split("\n") == [
        "# Intro of two lines.",
        "#",
        "# - one item that is",
        "#   long",
        "# - two",
    ]


def test_nothing_to_say_gives_nothing() -> None:
    assert comment(["", Section("Args", ())], CommentStyle(prefix="# "), Style()) == ""


def test_paragraphs_join_lines() -> None:
    assert paragraphs("a\nb\n\n- c\n  d\n- e") == ["a b", "- c d", "- e"]


def test_a_name_can_lead() -> None:
    assert lead_with("Nack", "Gives it back.") == "Nack gives it back."
    assert lead_with("Nack", "JSON is fine.") == "Nack JSON is fine."


def test_styles_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CommentStyle().width = 3  # type: ignore[misc]
