"""What was made of bodies before, kept beside the store: the next start need not make it again.

Everything is found by the digest of what it was made of, and carries a checksum, so what is here can be
missing but not out of date. A file that is damaged or of another format is made anew.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mq9_broker.search.keywords import Impacts
from mq9_broker.search.vectors import Packed

_log = logging.getLogger(__name__)

# Changes when words, fields or texts of vectors are made in another way.
FORMAT: Final = 2
_SNAPSHOT: Final = "index.npz"
_WRITES_TOGETHER: Final = 1_000
# Digests of one question to the database.
_ASKED_TOGETHER: Final = 250

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS entries (
    digest BLOB UNIQUE, text BLOB, words TEXT, impacts BLOB, fast BLOB, checksum INTEGER);
CREATE TABLE IF NOT EXISTS vectors (
    embedder TEXT, digest BLOB, vector BLOB, checksum INTEGER, UNIQUE (embedder, digest));
"""


class Entry(NamedTuple):
    """What is known of a body.

    Attributes:
        text: The digest of the texts that its vector is made of.
        impacts: Its words, each with what it says about it.
        fast: Its vector by the fast embedder.
    """

    text: bytes
    impacts: Impacts
    fast: Packed


class Cache:
    """Entries by the digest of a body, vectors by the digest of texts.

    Args:
        file: The database; None keeps nothing.
        fast: The identity of the embedder of the fast vectors.
    """

    def __init__(self, file: Path | None, fast: str) -> None:
        self._file = file
        self._fast = fast
        self._database: sqlite3.Connection | None = None
        self._writes = 0
        if file is not None:
            self._open_or_make(file)

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return self._database is not None

    @property
    def snapshot_file(self) -> Path | None:
        """Where the whole index is kept, if anything is."""
        return self._file.with_name(_SNAPSHOT) if self._file is not None and self.keeps else None

    def entries(self, digests: Sequence[bytes]) -> dict[bytes, Entry]:
        """Return what is known of some bodies."""
        found: dict[bytes, Entry] = {}
        for digest, text, words, impacts, fast, checksum in self._some(
            "SELECT digest, text, words, impacts, fast, checksum FROM entries WHERE digest IN ({})", digests
        ):
            if _checksum(digest, text, words.encode(), impacts, fast) == checksum:
                found[digest] = Entry(text, Impacts(words.split("\n") if words else [], impacts), fast)
        return found

    def vectors(self, digests: Sequence[bytes], embedder: str) -> dict[bytes, Packed]:
        """Return the vectors of some texts by an embedder."""
        return {
            digest: vector
            for digest, vector, checksum in self._some(
                "SELECT digest, vector, checksum FROM vectors WHERE digest IN ({}) AND embedder = ?",
                digests,
                embedder,
            )
            if _checksum(digest, vector) == checksum
        }

    def embedders(self) -> list[str]:
        """Return the identities of all embedders there are vectors of."""
        return [row[0] for row in self._rows("SELECT DISTINCT embedder FROM vectors")]

    def put_entries(self, entries: Iterable[tuple[bytes, Entry]]) -> None:
        """Keep what is known of some bodies."""
        self._write(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            (_entry_row(digest, entry) for digest, entry in entries),
        )

    def put_vectors(self, embedder: str, vectors: Iterable[tuple[bytes, Packed]]) -> None:
        """Keep the vectors of some texts."""
        self._write(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)",
            ((embedder, digest, vector, _checksum(digest, vector)) for digest, vector in vectors),
        )

    def keep_only(self, bodies: set[bytes], texts: set[bytes]) -> None:
        """Forget what belongs to no body and no texts any more."""
        for table, kept in (("entries", bodies), ("vectors", texts)):
            known = {row[0] for row in self._rows(f"SELECT digest FROM {table}")}  # noqa: S608
            self._write(
                f"DELETE FROM {table} WHERE digest = ?",  # noqa: S608
                ((digest,) for digest in known - kept),
            )
        self.commit()

    def keep_only_embedder(self, embedder: str) -> None:
        """Forget the vectors of all other embedders."""
        self._write("DELETE FROM vectors WHERE embedder <> ?", [(embedder,)])
        self.commit()

    def forget_embedder(self, embedder: str) -> None:
        """Forget the vectors of an embedder."""
        self._write("DELETE FROM vectors WHERE embedder = ?", [(embedder,)])
        self.commit()

    def commit(self) -> None:
        """Bring to the file what was written."""
        if self._database is not None and self._writes:
            self._writes = 0
            try:
                self._database.commit()
            except sqlite3.Error as error:
                self._give_up(error)

    def close(self) -> None:
        """Write what is pending, and end."""
        self.commit()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _some(self, query: str, digests: Sequence[bytes], *more: object) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(digests), _ASKED_TOGETHER):
            some = digests[start : start + _ASKED_TOGETHER]
            found += self._rows(query.format(",".join("?" * len(some))), *some, *more)
        return found

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        if self._database is None:
            return []
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        if self._database is None:
            return
        try:
            self._writes += max(self._database.executemany(statement, rows).rowcount, 0)
        except sqlite3.Error as error:
            self._give_up(error)
            return
        if self._writes >= _WRITES_TOGETHER:
            self.commit()

    def _open_or_make(self, file: Path) -> None:
        try:
            self._database = _open(file, self._fast)
        except (sqlite3.Error, OSError) as error:
            _log.warning("%s is made anew: %s", file, error)
            self._make_anew(file)

    def _make_anew(self, file: Path) -> None:
        try:
            for suffix in ("", "-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
            self._database = _open(file, self._fast)
        except (sqlite3.Error, OSError):
            _log.exception("search index is not kept on disk")

    def _give_up(self, error: sqlite3.Error) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        self._writes = 0
        if self._file is not None and not isinstance(error, sqlite3.OperationalError):
            _log.warning("%s is made anew: %s", self._file, error)
            self._make_anew(self._file)
        else:
            _log.warning("search index is kept on disk no more until the next start: %s", error)


def _entry_row(digest: bytes, entry: Entry) -> tuple[object, ...]:
    words = "\n".join(entry.impacts.words)
    checksum = _checksum(digest, entry.text, words.encode(), entry.impacts.impacts, entry.fast)
    return digest, entry.text, words, entry.impacts.impacts, entry.fast, checksum


def _checksum(*parts: bytes) -> int:
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    return found


def _open(file: Path, fast: str) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(file, check_same_thread=False)
    database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")
    database.execute("CREATE TABLE IF NOT EXISTS format (version INTEGER, fast TEXT)")
    known = database.execute("SELECT version, fast FROM format").fetchone()
    if known != (FORMAT, fast):
        database.executescript(
            "DROP TABLE IF EXISTS entries; DROP TABLE IF EXISTS vectors; DELETE FROM format;"
        )
        database.execute("INSERT INTO format VALUES (?, ?)", (FORMAT, fast))
    database.executescript(_TABLES)
    database.commit()
    return database
