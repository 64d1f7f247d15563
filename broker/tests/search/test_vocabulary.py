"""The words of a text are the same, with the same numbers, whether they are found in C or in Python."""

from array import array

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mq9_broker import native
from mq9_broker.search.vocabulary import Vocabulary

compiled = native.words_of_ascii
needs_compiled = pytest.mark.skipif(compiled is None, reason="NOT RUN: there are no compiled parts")

PIECES = st.sampled_from(
    [
        *(
            "a",
            "b",
            "Z",
            "Hub",
            "Git",
            "PDF",
            "reader",
            "9",
            "42",
            "x" * 63,
            "Y" * 65,
            "aB" * 40,
            "C++",
            "1Ab",
        ),
        *("-", "_", ".", "/", ":", "@", "&", "'", "+", "++", "#", " ", "\t", "\0", "!", "~"),
        *("McpServerGit", "mcp-server-git"),
    ]
)
ASCII = st.one_of(
    st.lists(PIECES, max_size=24).map("".join), st.text(st.characters(max_codepoint=127), max_size=40)
)


def numbered(texts: list[str]) -> tuple[list[list[int]], list[str]]:
    """The words of some texts, and what their numbers stand for."""
    vocabulary = Vocabulary()
    return [added(vocabulary, text) for text in texts], vocabulary.all()


def added(vocabulary: Vocabulary, text: str) -> list[int]:
    """The numbers of a text's words."""
    found = array("I", [7])
    assert vocabulary.add_text(text, found) == len(found) - 1
    return found.tolist()[1:]


@needs_compiled
@settings(max_examples=1000)
@given(st.lists(ASCII, max_size=3))
@example(["mcp-server-git McpServerGit GitHub C++ C# F#, a--b a---b a-+ x&y Node.js's v1.2"])
@example(["-".join("abcdefgh"), "-".join("abcdefghi"), "x" * 64 + "-y", "x" * 62 + "-y", "x" * 63 + "-y++"])
@example(["aBc", "ABc", "AbC", "A1b", "1aB", "aB1C", "ABCdEF", "x" * 70 + "Y" * 70, "HTTPServer2Go"])
def test_words_of_ascii_are_those_of_python(texts: list[str]) -> None:
    found = numbered(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "words_of_ascii", None)
        assert numbered(texts) == found


@given(st.text(st.sampled_from("aB9- é\u2019中文\U0001f600+"), max_size=20))
def test_other_texts_are_read_in_python(text: str) -> None:
    vocabulary = Vocabulary()
    added(vocabulary, "begins with these")
    numbers = added(vocabulary, text)
    assert added(vocabulary, text) == numbers
    assert all(vocabulary.find(word) == number for number, word in enumerate(vocabulary.all()))


@needs_compiled
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        (("a", {}, [], 64), TypeError),
        ((b"a", {}, [], 64, 8), TypeError),
        (("a", [], [], 64, 8), TypeError),
        (("a", {}, (), 64, 8), TypeError),
        (("a", {}, [], "64", 8), TypeError),
        (("a", {}, [], 0, 8), ValueError),
        (("a", {}, [], 129, 8), ValueError),
        (("a", {"a": "no number"}, [], 64, 8), TypeError),
        (("a", {"a": -1}, [], 64, 8), OverflowError),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[object, ...], error: type[Exception]) -> None:
    assert compiled is not None
    with pytest.raises(error):
        compiled(*arguments)  # type: ignore[arg-type]


@needs_compiled
def test_a_long_text() -> None:
    assert compiled is not None
    words: list[str] = []
    found = compiled("aB" * 500_000 + " " + "word-" * 200_000, {}, words, 64, 8)
    assert found is not None
    assert memoryview(found).cast("I").tolist()[-1] == words.index("word")
    assert compiled("é", {}, words, 64, 8) is None
