"""Vectors from an endpoint: what it is asked, and that nothing waits for it when it is slow or wrong."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mq9_broker.search.embedders import EmbedderError, HttpEmbedder
from mq9_broker.search.messages import Status
from mq9_broker.search.settings import SearchSettings

from .support import Agents, Registry, eventually
from .test_process import Searcher, searching

WORDS = ("rain", "train", "tax", "photo")


def vector(text: str, dimensions: int) -> list[float]:
    """How often each of a few words stands in a text, and something that every text has."""
    counts = [float(text.lower().count(word)) for word in WORDS]
    return [*counts, 0.1, *([0.0] * (dimensions - len(WORDS) - 1))]


class Endpoint:
    """A server that answers as a test wants it to.

    Attributes:
        url: Where it is.
        requests: The bodies that came, and their headers.
        answer: Makes the status and the body of a reply.
        gate: Replies wait until it is set.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.dimensions = 8
        self.answer: Callable[[list[str]], tuple[int, bytes]] = self.vectors
        self.gate = threading.Event()
        self.gate.set()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/embeddings"
                endpoint.requests.append((body, dict(self.headers)))
                endpoint.gate.wait(60)
                status, reply = endpoint.answer(body["input"])
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(reply)))
                    self.end_headers()
                    self.wfile.write(reply)
                except ConnectionError:
                    self.close_connection = True  # nobody waits for it any more

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}).start()

    def vectors(self, texts: list[str]) -> tuple[int, bytes]:
        data = [{"index": n, "embedding": vector(t, self.dimensions)} for n, t in enumerate(texts)]
        return 200, json.dumps({"data": data[::-1]}).encode()

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def settings(self, **options: Any) -> SearchSettings:
        return SearchSettings(embedder=self.url, **{"model": "m", "timeout": 30.0, "batch": 4, **options})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    yield found
    found.close()


def embedder(endpoint: Endpoint, **options: Any) -> HttpEmbedder:
    return HttpEmbedder(
        endpoint.url + "/", **{"model": "m", "key": "", "timeout": 30.0, "batch": 4, **options}
    )


def test_what_is_asked_and_what_comes_of_it(endpoint: Endpoint) -> None:
    found = embedder(endpoint, key="secret").embed(["rain", "", "tax tax"])
    ((body, headers),) = endpoint.requests
    assert body == {"model": "m", "input": ["rain", " ", "tax tax"]}
    assert headers["Authorization"] == "Bearer secret"
    assert found.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    # In the order of the texts, in whatever order they came.
    assert found[0].argmax() == WORDS.index("rain")
    assert found[2].argmax() == WORDS.index("tax")
    embedder(endpoint).embed(["rain"])
    assert "Authorization" not in endpoint.requests[1][1]


GARBAGE = [
    (500, b"no"),
    (401, b'{"error":"key"}'),
    (200, b""),
    (200, b"<html>"),
    (200, b"null"),
    (200, b"[" * 100_000),
    (200, b'{"data":null}'),
    (200, b'{"data":[]}'),
    (200, b'{"data":[{"index":0}]}'),
    (200, b'{"data":[{"index":0,"embedding":[]},{"index":1,"embedding":[]}]}'),
    (200, b'{"data":[{"index":0,"embedding":[1]}]}'),
    (200, b'{"data":[{"index":0,"embedding":[1,2]},{"index":1,"embedding":[1]}]}'),
    (200, b'{"data":[{"index":0,"embedding":["x"]},{"index":1,"embedding":["y"]}]}'),
    (200, b'{"data":[{"index":0,"embedding":[1e999]},{"index":1,"embedding":[1]}]}'),
    (200, b'{"data":[{"index":0,"embedding":[NaN]},{"index":1,"embedding":[1]}]}'),
    (200, b'{"data":[{"index":"a","embedding":[1]},{"index":1,"embedding":[1]}]}'),
    (200, b'{"data":[{"index":0,"embedding":1},{"index":1,"embedding":2}]}'),
    (200, b"\xff\xfe"),
]


@pytest.mark.parametrize("reply", GARBAGE, ids=range(len(GARBAGE)))
def test_a_reply_that_is_none_is_an_error_that_names_the_endpoint(
    endpoint: Endpoint, reply: tuple[int, bytes]
) -> None:
    endpoint.answer = lambda _: reply
    with pytest.raises(EmbedderError, match=endpoint.url):
        embedder(endpoint).embed(["a", "b"])


def test_a_reply_that_does_not_come_ends_with_the_timeout(endpoint: Endpoint) -> None:
    endpoint.gate.clear()
    with pytest.raises(EmbedderError, match="timed out"):
        embedder(endpoint, timeout=0.05).embed(["a"])


def test_nobody_there_is_an_error(endpoint: Endpoint) -> None:
    endpoint.close()
    with pytest.raises(EmbedderError, match="refused"):
        embedder(endpoint).embed(["a"])


AGENTS = {
    "a": "rain rain and more rain",
    "b": "every train there is",
    "c": "tax returns",
    "d": "a photo and another photo",
}


async def all_embedded(searcher: Searcher) -> None:
    """Wait until no agent waits for its vector."""

    def is_done() -> bool:
        status = searcher.process.status
        return status is not None and status.agents > 0 and not status.waiting

    await eventually(is_done)


def has_failed(status: Status) -> bool:
    return status.embedder_failures > 0


async def is_first(searcher: Searcher, question: str, name: str) -> bool:
    return (await searcher.names(question, by_meaning=True))[0] == name


def fill(searcher: Searcher) -> None:
    for name, text in AGENTS.items():
        searcher.put(name, description=text)


async def test_agents_are_embedded_in_batches_and_queries_by_the_endpoint(endpoint: Endpoint) -> None:
    async with searching(endpoint.settings(batch=2)) as searcher:
        fill(searcher)
        await all_embedded(searcher)
        assert max(len(body["input"]) for body, _ in endpoint.requests) == 2
        assert sum(len(body["input"]) for body, _ in endpoint.requests) == len(AGENTS)
        # Only the endpoint's vectors say so: no word of the question is in the text.
        assert (await searcher.names("TRAINtaxTRAIN", by_meaning=True))[0] == "b"
        assert endpoint.requests[-1][0]["input"] == ["TRAINtaxTRAIN"]


async def test_nothing_waits_for_an_endpoint_that_does_not_answer(endpoint: Endpoint) -> None:
    endpoint.gate.clear()
    async with searching(endpoint.settings()) as searcher:
        fill(searcher)
        assert await searcher.names("rain") == ["a"]
        await eventually(lambda: bool(endpoint.requests))
        # It hangs now. Registrations, searches by words and by meaning go on.
        searcher.put("e", description="railway timetables")
        assert await searcher.names("timetables") == ["e"]
        assert set(await searcher.names("trains", by_meaning=True)) == {*AGENTS, "e"}
        assert searcher.process.waiting > 0
        endpoint.gate.set()
        await all_embedded(searcher)


async def test_a_query_waits_for_the_endpoint_a_little_and_then_goes_without(endpoint: Endpoint) -> None:
    async with searching(endpoint.settings()) as searcher:
        fill(searcher)
        await all_embedded(searcher)
        endpoint.gate.clear()
        first = searcher.ask("train", by_meaning=True)
        second = searcher.ask("rain", by_meaning=True)
        assert await searcher.names("tax") == ["c"]
        for future in (first, second):
            assert len((await asyncio.wait_for(future, 60)).hits) == len(AGENTS)
        assert not endpoint.gate.is_set()
        assert searcher.process.status is not None


async def test_after_errors_it_is_asked_again_and_they_are_counted(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: (503, b"later")
    async with searching(endpoint.settings()) as searcher:
        fill(searcher)
        await eventually(lambda: searcher.process.status is not None and has_failed(searcher.process.status))
        assert searcher.process.waiting == len(AGENTS)
        assert (await searcher.names("train", by_meaning=True))[0] == "b"
        endpoint.answer = endpoint.vectors
        await all_embedded(searcher)
        assert searcher.process.restarts == 0


async def test_vectors_of_another_length_are_made_for_all_agents(endpoint: Endpoint) -> None:
    async with searching(endpoint.settings()) as searcher:
        fill(searcher)
        await all_embedded(searcher)
        endpoint.dimensions = 16
        endpoint.requests.clear()
        # The endpoint has another model now: its vector of the query compares with none that is there.
        assert set(await searcher.names("train", by_meaning=True)) == set(AGENTS)
        searcher.put("e", description="rain again")
        await eventually(lambda: is_first(searcher, "TRAINtaxTRAIN", "b"))
        asked = {text for body, _ in endpoint.requests for text in body["input"]}
        assert asked >= {f"{name}. {text}" for name, text in AGENTS.items()}
        assert searcher.process.restarts == 0


async def test_a_query_shows_that_vectors_have_another_length_now(endpoint: Endpoint) -> None:
    async with searching(endpoint.settings()) as searcher:
        fill(searcher)
        await all_embedded(searcher)
        endpoint.dimensions = 16
        assert set(await searcher.names("train", by_meaning=True)) == set(AGENTS)
        await eventually(lambda: is_first(searcher, "TRAINtaxTRAIN", "b"))


def test_what_an_endpoint_made_is_kept_and_belongs_to_it_and_its_model(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    def registry(**options: Any) -> Registry:
        found = Registry(endpoint.settings(cache=str(tmp_path), **options))
        found.agents = Agents(
            {n: json.dumps({"name": n, "description": t}).encode() for n, t in AGENTS.items()}
        )
        found.search._agents = found.agents
        found.search.start()
        return found

    first = registry()
    assert first.search.index.waiting == len(AGENTS)
    first.search.embed_all()
    first.search.close()
    again = registry()
    assert again.search.index.waiting == 0
    again.search.close()
    other = registry(model="another")
    assert other.search.index.waiting == len(AGENTS)
    other.search.close()


def test_while_an_endpoint_catches_up_the_multilingual_vectors_serve(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    german = {"wetter": "Sagt, ob es morgen regnet.", "auto": "Repariert Autos.", "essen": "Kocht zu Mittag."}
    first = Registry(SearchSettings(cache=str(tmp_path)))
    for name, text in german.items():
        first.put(name, description=text)
    first.search.embed_all()
    question = "谁会修车"
    expected = first.names(question, by_meaning=True)
    assert expected[0] == "auto"
    first.search.close()
    later = Registry(endpoint.settings(cache=str(tmp_path)))
    later.agents.update(first.agents)
    later.search.start()
    assert later.search.index.waiting == len(german)
    assert later.names(question, by_meaning=True) == expected
    later.search.embed_all()
    assert later.search.index.serves_own_vectors
    assert set(later.names(question, by_meaning=True)) == set(german)
    later.search.close()
