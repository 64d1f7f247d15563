"""What is kept beside the store: used where it is right, made anew where it is not."""

import hashlib
import sqlite3
from pathlib import Path

import pytest

from mq9_broker.search import cache as cache_module
from mq9_broker.search.cards import read_card
from mq9_broker.search.interface import Hit
from mq9_broker.search.keywords import KeywordIndex
from mq9_broker.search.settings import SearchSettings

from .support import Registry

TEXTS = {
    "mcp-server-git": "Reads GitHub repositories; C++ and Node.js too.",
    "地图": "查询地图、路线和周边的餐馆 pdf",
    "café": "Straße, naïve ABC",
}


def registry(folder: Path) -> Registry:
    return Registry(SearchSettings(cache=str(folder)))


def filled(folder: Path) -> Registry:
    """A registry of the texts, found by words and by meaning, and all of it kept."""
    found = registry(folder)
    for name, text in TEXTS.items():
        found.put(name, description=text, tags=["all"])
    found.search.embed_all()
    return found


def again(folder: Path, before: Registry) -> Registry:
    """Another one of the same agents."""
    found = registry(folder)
    found.agents.update(before.agents)
    found.search.start()
    return found


Answers = list[tuple[list[Hit], list[Hit]]]


def answers(found: Registry) -> Answers:
    """What a registry answers to some questions, by words and by meaning."""
    return [(found.hits(q), found.hits(q, by_meaning=True)) for q in QUESTIONS]


def assert_alike(found: Answers, expected: Answers) -> None:
    """The same, but for vectors that were made among others: their last digits may differ."""
    for some, others in zip(found, expected, strict=True):
        assert some[0] == others[0]
        assert dict(some[1]) == pytest.approx(dict(others[1]), abs=0.02)


QUESTIONS = ["git", "github", "c++", "nodejs", "地图", "餐馆", "cafe", "strasse", "all", "all pdf"]


def test_what_was_kept_answers_as_what_is_made_anew(tmp_path: Path) -> None:
    first = filled(tmp_path)
    expected = answers(first)
    first.search.close()
    second = again(tmp_path, first)
    assert (second.search.index.soon, second.search.index.waiting) == (0, 0)
    assert answers(second) == expected
    second.search.close()
    third = again(tmp_path / "empty", first)
    assert third.search.index.waiting == len(TEXTS)
    third.search.embed_all()
    assert_alike(answers(third), expected)
    third.search.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET impacts = zeroblob(length(impacts))",
        "UPDATE entries SET words = replace(words, 'git', 'fig')",
        "UPDATE entries SET fast = zeroblob(length(fast))",
        "UPDATE entries SET text = zeroblob(16)",
        "UPDATE vectors SET vector = zeroblob(length(vector))",
        "DELETE FROM entries",
        "DELETE FROM vectors",
        "DROP TABLE entries",
        "UPDATE format SET version = version - 1",
        "UPDATE format SET fast = 'another'",
    ],
)
def test_what_is_wrong_there_is_made_anew(tmp_path: Path, damage: str) -> None:
    first = filled(tmp_path)
    expected = answers(first)
    first.search.close()
    with sqlite3.connect(tmp_path / "search.sqlite") as database:
        database.execute(damage)
    database.close()
    second = again(tmp_path, first)
    second.search.embed_all()
    assert_alike(answers(second), expected)
    second.search.close()
    third = again(tmp_path, first)
    assert (third.search.index.soon, third.search.index.waiting) == (0, 0)
    third.search.close()


def test_bytes_that_changed_in_the_file_change_no_answer(tmp_path: Path) -> None:
    first = filled(tmp_path)
    expected = answers(first)
    first.search.close()
    file = tmp_path / "search.sqlite"
    whole = file.read_bytes()
    for place in range(50, len(whole), len(whole) // 16):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        second = again(tmp_path, first)
        second.search.embed_all()
        assert_alike(answers(second), expected)
        second.search.close()


def test_equal_texts_have_one_vector_whatever_else_their_bodies_say(tmp_path: Path) -> None:
    found = registry(tmp_path)
    for number in range(20):
        found.put(f"n{number}", title="One", description="the same words", version=f"v{number}")
    assert found.search.index.waiting == 20
    taken, texts = found.search.index.next_texts()
    assert texts == ["One. the same words"]
    embedder = found.search.index.embedder
    assert embedder is not None
    found.search.index.set_vectors(taken, embedder.embed(texts))
    assert found.search.index.waiting == 0
    # Nor has it to be made again when one is replaced.
    found.put("n3", title="One", description="the same words", version="v3.1")
    assert found.search.index.waiting == 0
    found.search.close()


# What is kept depends on how words, fields and texts are made. Whoever changes that changes the format.
FORMAT = 2
MADE = "2109"


def test_the_format_has_another_number_when_other_things_are_kept() -> None:
    made = hashlib.sha256()
    for name, text in TEXTS.items():
        body = {"name": name, "description": text, "tags": ["a-b"], "skills": [{"id": "x", "tags": ["y"]}]}
        card = read_card(str(body).replace("'", '"').encode())
        keywords = KeywordIndex()
        keywords.add(0, card.fields)
        sealed = [(row, document.spelled()) for row, document in keywords.seal(wanted=True)]
        made.update(repr((sealed, card.head, card.skills, card.rest)).encode())
    assert (cache_module.FORMAT, made.hexdigest()[:4]) == (FORMAT, MADE)
