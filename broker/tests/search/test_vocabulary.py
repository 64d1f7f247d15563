"""The words of a text are the same, with the same numbers, whether they are found in C or in Python."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mq9_broker import native
from mq9_broker.search.vocabulary import Collected, Vocabulary

compiled = native.words_of_fields
FIELDS = (("a", 1.0),)
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


def nothing(text: str) -> array[int]:
    """No words."""
    return array("I")


def numbered(texts: list[str]) -> tuple[list[list[int]], list[str]]:
    """The words of some texts, and what their numbers stand for."""
    vocabulary = Vocabulary()
    return [added(vocabulary, text) for text in texts], vocabulary.all()


def added(vocabulary: Vocabulary, text: str) -> list[int]:
    """The numbers of a text's words."""
    found = Collected()
    vocabulary.add([("", 1.0), (text, 1.5), ("!", 2.0)], found)
    assert found.weights.tolist() == [1.0, 1.5, 2.0]
    assert found.lengths.tolist() == [0, len(found.words), 0]
    return found.words.tolist()


@needs_compiled
@settings(max_examples=1000)
@given(st.lists(ASCII, max_size=3))
@example(["mcp-server-git McpServerGit GitHub C++ C# F#, a--b a---b a-+ x&y Node.js's v1.2"])
@example(["-".join("abcdefgh"), "-".join("abcdefghi"), "x" * 64 + "-y", "x" * 62 + "-y", "x" * 63 + "-y++"])
@example(["aBc", "ABc", "AbC", "A1b", "1aB", "aB1C", "ABCdEF", "x" * 70 + "Y" * 70, "HTTPServer2Go"])
def test_words_are_those_of_python(texts: list[str]) -> None:
    found = numbered(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "words_of_fields", None)
        assert numbered(texts) == found


@needs_compiled
@settings(max_examples=300)
@given(st.lists(ASCII, max_size=5), st.sampled_from([1, 2, 8]))
def test_words_that_share_a_place_keep_their_numbers(texts: list[str], places: int) -> None:
    assert compiled is not None
    fields = tuple((text, 1.0) for text in texts)
    vocabularies: list[tuple[dict[str, int], list[str], bytearray]]
    vocabularies = [({}, [], bytearray(32 * size)) for size in (places, 2**15)]
    for _ in range(2):
        few, many = (compiled(fields, *vocabulary, 64, 8, nothing) for vocabulary in vocabularies)
        assert few == many
    assert vocabularies[0][:2] == vocabularies[1][:2]


def test_words_that_are_numbered_again_are_found_by_their_new_numbers() -> None:
    vocabulary = Vocabulary()
    assert added(vocabulary, "one two three") == [0, 1, 2]
    spelling = vocabulary.spelling
    assert vocabulary.keep_only(np.array([1, 2], np.uint32)).tolist() == [-1, 0, 1]
    assert added(vocabulary, "three two one") == [1, 0, 2]
    assert (spelling, vocabulary.all()) == (["one", "two", "three"], ["two", "three", "one"])
    other = Vocabulary()
    assert added(other, "one two") == [0, 1]
    other.restore(["two", "one"])
    assert added(other, "one two") == [1, 0]


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
        ((FIELDS, {}, [], bytearray(32), 64, 8), TypeError),
        (([], {}, [], bytearray(32), 64, 8, nothing), TypeError),
        ((FIELDS, [], [], bytearray(32), 64, 8, nothing), TypeError),
        ((FIELDS, {}, (), bytearray(32), 64, 8, nothing), TypeError),
        ((FIELDS, {}, [], bytes(32), 64, 8, nothing), BufferError),
        ((FIELDS, {}, [], bytearray(32), "64", 8, nothing), TypeError),
        ((FIELDS, {}, [], bytearray(32), 64, 8, None), TypeError),
        ((FIELDS, {}, [], bytearray(32), 0, 8, nothing), ValueError),
        ((FIELDS, {}, [], bytearray(32), 129, 8, nothing), ValueError),
        ((FIELDS, {}, [], bytearray(31), 64, 8, nothing), ValueError),
        ((FIELDS, {}, [], bytearray(3 * 32), 64, 8, nothing), ValueError),
        ((FIELDS, {"a": "no number"}, [], bytearray(32), 64, 8, nothing), TypeError),
        ((FIELDS, {"a": -1}, [], bytearray(32), 64, 8, nothing), OverflowError),
        ((("a",), {}, [], bytearray(32), 64, 8, nothing), TypeError),
        (((("a", 1),), {}, [], bytearray(32), 64, 8, nothing), TypeError),
        ((((b"a", 1.0),), {}, [], bytearray(32), 64, 8, nothing), TypeError),
        (((("é", 1.0),), {}, [], bytearray(32), 64, 8, lambda _: None), TypeError),
        (((("é", 1.0),), {}, [], bytearray(32), 64, 8, lambda _: 1 // 0), ZeroDivisionError),
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
    fields = (("aB" * 500_000 + " " + "word-" * 200_000, 1.0), ("é" * 1000, 2.0), ("word", 3.0))
    numbers, lengths, weights = compiled(
        fields, {}, words, bytearray(32), 64, 8, lambda text: array("I", [4711] * len(text))
    )
    found = memoryview(numbers).cast("I").tolist()
    assert found[-1001:] == [4711] * 1000 + [words.index("word")]
    assert memoryview(lengths).cast("I").tolist() == [len(found) - 1001, 1000, 1]
    assert memoryview(weights).cast("d").tolist() == [1.0, 2.0, 3.0]
