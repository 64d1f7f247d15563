"""Keyword search over short documents: agents' bodies, English and Chinese alike.

Words are found here, not by SQLite's tokenizers: Unicode words, case and width folded, and runs of Han and
kana as single characters and pairs of neighbours (such text has no blanks between its words). SQLite's FTS5
keeps and ranks them in memory; it sees only letters, digits and `_` of ASCII, so nothing that anybody writes
can be taken for its query syntax.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Iterable
from typing import Final, NamedTuple

# Words of a query beyond this many different ones are ignored: nobody types them, and each costs a look-up.
MAX_QUERY_WORDS: Final = 500

_WORD: Final = re.compile(r"[^\W_]+")
# Han (with extensions and compatibility forms), hiragana and katakana: scripts written without blanks.
_UNSPACED: Final = re.compile(
    "[\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


class Hit(NamedTuple):
    """A document that was found.

    Attributes:
        name: Its name.
        score: How well it matches; greater is better, always above 0.
    """

    name: str
    score: float


class KeywordIndex:
    """Documents by name, searchable by any of their words."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            # A word is looked up alone, never as part of a phrase: positions need not be kept.
            "CREATE VIRTUAL TABLE documents USING fts5("
            "name UNINDEXED, words, tokenize = \"ascii tokenchars '_'\", detail = none);"
        )
        self._rows: dict[str, int] = {}
        self._next_row = 1

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._rows)

    def put(self, name: str, texts: Iterable[str]) -> None:
        """Index a document, or replace it."""
        self.remove(name)
        words = " ".join(word for text in texts for word in index_words(text))
        row = self._next_row
        self._next_row += 1
        self._database.execute(
            "INSERT INTO documents (rowid, name, words) VALUES (?, ?, ?)", (row, name, words)
        )
        self._rows[name] = row

    def remove(self, name: str) -> None:
        """Forget a document; nothing happens if it is not there."""
        row = self._rows.pop(name, None)
        if row is not None:
            self._database.execute("DELETE FROM documents WHERE rowid = ?", (row,))

    def search(self, text: str, limit: int, *, skip: int = 0, after: Hit | None = None) -> list[Hit]:
        """Return documents with any of a text's words, best match first, equal ones by name in byte order.

        Args:
            text: Anything that a person may type.
            limit: The most documents to return.
            skip: Leave out that many from the beginning.
            after: Leave out this hit of an earlier search and all before it.
        """
        words = query_words(text)
        if not words:
            return []
        query = " OR ".join(f'"{word}"' for word in words)
        # bm25() is negative, and smaller for a better match; SQLite compares text as its UTF-8 bytes.
        rank, name = (-after.score, after.name) if after is not None else (float("-inf"), "")
        found = self._database.execute(
            "SELECT name, rank FROM"
            " (SELECT name, bm25(documents) AS rank FROM documents WHERE documents MATCH ?)"
            " WHERE rank > ? OR (rank = ? AND name > ?) ORDER BY rank, name LIMIT ? OFFSET ?",
            (query, rank, rank, name, limit, skip),
        )
        return [Hit(name, -rank) for name, rank in found]


def index_words(text: str) -> list[str]:
    """Return the words of a document, repeats included, in the spelling of the index."""
    found = []
    for word in _words(text):
        if _UNSPACED.fullmatch(word) is None:
            found.append(_spell(word))
        else:
            found += [_spell(character) for character in word]
            found += [_spell(word[i : i + 2]) for i in range(len(word) - 1)]
    return found


def query_words(text: str) -> list[str]:
    """Return the different words of a query; of Chinese the pairs, or a character that stands alone."""
    found: dict[str, None] = {}
    for word in _words(text):
        if len(found) >= MAX_QUERY_WORDS:
            break
        if len(word) == 1 or _UNSPACED.fullmatch(word) is None:
            found[_spell(word)] = None
        else:
            found.update((_spell(word[i : i + 2]), None) for i in range(len(word) - 1))
    return list(found)[:MAX_QUERY_WORDS]


def _words(text: str) -> Iterable[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    for word in _WORD.findall(folded):
        if word.isascii():
            yield word
            continue
        end = 0
        for run in _UNSPACED.finditer(word):
            if run.start() > end:
                yield word[end : run.start()]
            yield run.group()
            end = run.end()
        if end < len(word):
            yield word[end:]


def _spell(word: str) -> str:
    """Write a word in ASCII; different words stay different (`_` stands in no other one)."""
    return word if word.isascii() else "_" + word.encode().hex()
