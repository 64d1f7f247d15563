"""Keyword search: what is found, in which order, whatever is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq9_broker.shell.search import Hit, KeywordIndex, query_words


def index(**documents: str) -> KeywordIndex:
    result = KeywordIndex()
    for name, text in documents.items():
        result.put(name, [text])
    return result


def names(hits: list[Hit]) -> list[str]:
    return [hit.name for hit in hits]


def test_any_word_finds_and_more_words_come_first() -> None:
    found = index(
        a="translates text", b="translates text to French", c="weather forecast", d="French weather"
    )
    assert set(names(found.search("translates French", 10))) == {"a", "b", "d"}
    assert names(found.search("translates French", 10))[0] == "b"
    assert names(found.search("nothing of that", 10)) == []
    assert names(found.search("trans", 10)) == []


@pytest.mark.parametrize("query", ["STRASSE", "straße", "Straße!", "(strasse)"])
def test_case_and_width_do_not_matter(query: str) -> None:
    assert names(index(a="Die Straße", b="x").search(query, 10)) == ["a"]
    assert names(index(a="\uff21\uff22\uff23", b="x").search("abc", 10)) == ["a"]


def test_chinese_needs_no_blanks() -> None:
    found = index(a="中英翻译专家", b="天气预报 weather", c="翻书")
    assert names(found.search("翻译", 10)) == ["a"]
    assert names(found.search("我想找翻译", 10)) == ["a"]
    assert names(found.search("天气 translate", 10)) == ["b"]
    assert set(names(found.search("翻", 10))) == {"a", "c"}
    assert names(found.search("PDF翻译", 10)) == ["a"]
    assert names(index(a="GPT模型").search("gpt", 10)) == ["a"]
    assert names(index(a="翻訳エージェント").search("エージェント", 10)) == ["a"]


def test_equal_matches_come_by_name_in_byte_order() -> None:
    found = KeywordIndex()
    order = ["", "A", "Z", "a", "b", "z", "é", "组", "\U0001f600"]
    for name in reversed(order):
        found.put(name, ["same words"])
    assert names(found.search("words", 100)) == order


def test_pages_and_continuation_show_each_document_once() -> None:
    found = KeywordIndex()
    for number in range(50):
        found.put(f"n{number:02}", ["word " * (number % 5 + 1)])
    everything = found.search("word", 1000)
    assert len(everything) == 50
    paged = [hit for page in range(6) for hit in found.search("word", 10, skip=page * 10)]
    assert paged == everything
    continued: list[Hit] = []
    while hits := found.search("word", 7, after=continued[-1] if continued else None):
        continued += hits
    assert continued == everything
    assert all(hit.score > 0 for hit in everything)


def test_replacing_and_removing() -> None:
    found = index(a="one", b="two")
    found.put("a", ["two"])
    assert names(found.search("one", 10)) == []
    assert names(found.search("two", 10)) == ["a", "b"]
    found.put("a", ["two"])
    found.remove("b")
    found.remove("never there")
    assert names(found.search("two", 10)) == ["a"]
    assert len(found) == 1


@pytest.mark.parametrize(
    "query",
    [
        '" OR "',
        "'; DROP TABLE documents; --",
        "NEAR(one, 2)",
        "one*",
        "^one",
        "name : one",
        "one AND NOT two",
        "%_\\",
        "\x00one\x00",
        "one " * 5000,
        " ".join(f"w{n}" for n in range(5000)) + " one",
        "x" * 10_000,
        "组" * 10_000,
        "_e7bb84",
    ],
)
def test_anything_is_a_query_and_never_a_command(query: str) -> None:
    found = index(one="one", two="two")
    assert set(names(found.search(query, 10))) <= {"one", "two"}
    assert names(found.search("one", 10)) == ["one"]


def test_words_beyond_the_bound_are_ignored() -> None:
    assert len(query_words(" ".join(f"w{n}" for n in range(5000)))) == 500


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_document_is_found_by_each_of_its_words(text: str, query: str) -> None:
    found = index(a=text)
    assert names(found.search(query, 5)) in ([], ["a"])
    for word in text.split():
        if query_words(word):
            assert names(found.search(word, 5)) == ["a"]
