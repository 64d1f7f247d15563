"""Search by meaning, with the embedders that come in wheels."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mq9_broker.search import vectors
from mq9_broker.search.chinese import gloss, pinyin, words
from mq9_broker.search.embedders import FastEmbedder, MultilingualEmbedder
from mq9_broker.search.settings import SearchSettings
from mq9_broker.search.vectors import Column, pack

from .support import Registry

AGENTS = {
    "weather": "Tells the weather forecast for any city in the world.",
    "translator": "Translates documents between German, French and English.",
    "trains": "Looks up railway timetables and free seats on trains.",
    "photos": "Cuts people and goods out of photographs and removes the background.",
    "accounts": "Keeps the books: invoices, taxes and payroll.",
    "地图": "查询地图、路线和周边的餐馆。",
}
QUESTIONS = [
    ("will it rain in Paris tomorrow", "weather"),
    ("turn this letter from English into French", "translator"),
    ("明天的高铁还有没有座位", "trains"),
    ("商品照片一键抠图", "photos"),
    ("what do I owe the tax office", "accounts"),
    ("附近有什么好吃的", "地图"),
    ("restaurants near me", "地图"),
]


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    found = Registry(SearchSettings())
    for name, text in AGENTS.items():
        found.put(name, description=text)
    yield found
    found.search.close()


@pytest.mark.parametrize(("question", "name"), QUESTIONS)
def test_the_right_agent_comes_first(registry: Registry, question: str, name: str) -> None:
    registry.search.embed_all()
    assert registry.names(question, by_meaning=True)[0] == name


def test_all_agents_are_ranked_and_each_is_shown_once(registry: Registry) -> None:
    everything = registry.hits("trains", by_meaning=True)
    assert {hit.name for hit in everything} == set(AGENTS)
    seen = []
    page = registry.found("trains", 2, by_meaning=True)
    while page.hits:
        seen += page.hits
        registry.put("other", description="sells trains")
        last = page.hits[-1]
        page = registry.found(
            "trains", 2, by_meaning=True, after=(last.name, last.score), rarities=page.rarities
        )
        page.hits[:] = [hit for hit in page.hits if hit.name != "other"]
    registry.remove("other")
    assert seen == everything


def test_without_multilingual_vectors_the_fast_ones_serve() -> None:
    found = Registry(SearchSettings())
    for name, text in AGENTS.items():
        found.put(name, description=text)
    assert found.search.index.waiting == len(AGENTS)
    assert found.names("will it rain in Paris tomorrow", by_meaning=True)[0] == "weather"
    assert len(found.names("明天的高铁还有没有座位", by_meaning=True)) == len(AGENTS)


@pytest.mark.parametrize(
    "question", ["", " ", "\x00", "?", "😀", "的", "x" * 10_000, "组" * 10_000, "a " * 5_000]
)
def test_any_question_has_an_answer(registry: Registry, question: str) -> None:
    hits = registry.hits(question, by_meaning=True)
    assert len(hits) == len(AGENTS)
    assert all(np.isfinite(hit.score) for hit in hits)


@pytest.mark.parametrize(
    "body",
    [b'{"name":"x"}', b'{"name":"\\u0000"}', b'{"name":"x","payload":""}', b'{"name":"x","skills":[{}]}'],
)
def test_an_agent_with_nothing_to_say_is_ranked_too(body: bytes) -> None:
    found = Registry(SearchSettings())
    found.put("x", body)
    found.search.embed_all()
    assert found.names("anything", by_meaning=True) == ["x"]


def test_what_was_made_is_kept_beside_the_store(tmp_path: Path) -> None:
    settings = SearchSettings(cache=str(tmp_path / "search"))
    first = Registry(settings)
    for name, text in AGENTS.items():
        first.put(name, description=text)
    first.search.embed_all()
    expected = first.hits("trains to Berlin", by_meaning=True)
    first.search.close()

    again = Registry(settings)
    again.agents.update(first.agents)
    again.agents.pop("accounts")
    again.search.start()
    assert again.search.index.waiting == 0
    assert again.names("trains to Berlin", by_meaning=True) == [
        hit.name for hit in expected if hit.name != "accounts"
    ]
    again.search.close()

    # What is registered no more is forgotten.
    third = Registry(settings)
    third.agents.update(first.agents)
    third.search.start()
    assert third.search.index.waiting == 1
    third.search.close()


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\x00" + bytes(4096)])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "search.sqlite").write_bytes(damage)
    settings = SearchSettings(cache=str(tmp_path))
    for waiting in (1, 0):
        found = Registry(settings)
        found.put("x", description="word")
        assert found.search.index.waiting == waiting
        found.search.embed_all()
        assert found.names("word") == ["x"]
        found.search.close()


def test_vectors_of_eight_bits_say_what_the_exact_ones_say() -> None:
    exact = FastEmbedder().embed(list(AGENTS.values()))
    column = Column("fast")
    for row, vector in enumerate(pack(exact)):
        column.put(2 * row, vector)
        assert column.get(2 * row) == vector
    found = column.compare(exact[0], 2 * len(exact))
    missing = column.missing(2 * len(exact), column.age)
    assert missing is not None
    assert missing.tolist() == [False, True] * len(exact)
    assert not found[1::2].any()
    np.testing.assert_allclose(found[::2], exact @ exact[0], atol=0.02)
    column.remove(0)
    assert not column.compare(exact[0], 1).any()
    missing = column.missing(1, column.age)
    assert missing is not None
    assert missing.all()


def test_the_same_text_has_the_same_vector_alone_and_among_others() -> None:
    for embedder in (FastEmbedder(), MultilingualEmbedder()):
        texts = [*AGENTS.values(), "", "的"]
        together = embedder.embed(texts)
        for text, vector in zip(texts, together, strict=True):
            np.testing.assert_allclose(embedder.embed([text])[0], vector, atol=1e-4)
        assert np.isfinite(together).all()


def test_chinese_in_english_and_in_pinyin() -> None:
    assert "railway" in gloss("铁路") or "rail" in gloss("铁路")
    assert gloss("PDF 文档").startswith("PDF")
    assert {"feishu", "yuque"} <= set(pinyin("飞书和语雀"))
    assert words("查询铁路时刻表").split()[0] == "查询"
    assert gloss("") == words("") == ""
    assert pinyin("no Chinese") == []


OFFLINE = """
import sys
reached = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        reached.append((event, arguments[1:] if event == "socket.connect" else arguments))
sys.addaudithook(hook)
from mq9_broker.search.settings import SearchSettings
from mq9_broker.search.worker import open_index
from mq9_broker.search.interface import Query
index = open_index(SearchSettings())
index.put("a", '{"name":"a","description":"查询 weather"}'.encode())
index.embed_soon()
taken, texts = index.next_texts()
index.set_vectors(taken, index.embedder.embed(texts))
assert index.waiting == 0
for text in ("weather", "天气"):
    for by_meaning in (False, True):
        index.search(Query(text, by_meaning, 10))
assert not reached, reached
"""


def test_nothing_is_downloaded() -> None:
    # No folder where anything could have been kept before, and nobody to ask.
    environment = {"HOME": "/nonexistent", "HF_HOME": "/nonexistent", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_vectors_that_come_between_two_pages_do_not_mix_them_up() -> None:
    found = Registry(SearchSettings())
    for name, text in AGENTS.items():
        found.put(name, description=text)
    everything = found.hits("railway tickets", by_meaning=True)
    page = found.found("railway tickets", 3, by_meaning=True)
    found.search.embed_all()
    last = page.hits[-1]
    rest = found.hits(
        "railway tickets", by_meaning=True, after=(last.name, last.score), rarities=page.rarities
    )
    assert page.hits + rest == everything
    assert found.hits("railway tickets", by_meaning=True) != everything


def test_many_vectors_are_compared_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    column = Column("random")
    column.put_all(range(1_001), pack(random.normal(size=(1_001, 64)).astype(np.float32)))
    query = random.normal(size=64).astype(np.float32)
    alone = column.compare(query, 1_001)
    monkeypatch.setattr(vectors, "_LEAST_FOR_TWO", 10)
    np.testing.assert_array_equal(column.compare(query, 1_001), alone)
    np.testing.assert_array_equal(column.compare(query, 500), alone[:500])
