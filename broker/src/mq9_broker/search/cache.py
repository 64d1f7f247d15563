"""What was made of bodies before, kept beside the store: the next start need not make it again.

Nothing here is needed: a file that is missing, damaged or of another format is made anew.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from mq9_broker.search.vectors import PackedVector

_log = logging.getLogger(__name__)

# Changes when words, fields or texts of vectors are made in another way.
_FORMAT: Final = 1
_WRITES_TOGETHER: Final = 1_000

Impacts = list[tuple[str, float]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Impacts).decode


class Entry(NamedTuple):
    """What is known of a body.

    Attributes:
        impacts: Its words, each with what it says about it.
        fast: Its vector by the fast embedder.
    """

    impacts: Impacts
    fast: PackedVector


class Cache:
    """Entries and vectors by the digest of a body.

    Args:
        file: The database; None keeps nothing.
        fast: The identity of the embedder of the fast vectors.
    """

    def __init__(self, file: Path | None, fast: str) -> None:
        self._database: sqlite3.Connection | None = None
        self._writes = 0
        if file is None:
            return
        try:
            self._database = _open(file, fast)
        except (sqlite3.Error, OSError) as error:
            _log.warning("%s is made anew: %s", file, error)
            try:
                for suffix in ("", "-wal", "-shm"):
                    file.with_name(file.name + suffix).unlink(missing_ok=True)
                self._database = _open(file, fast)
            except (sqlite3.Error, OSError):
                _log.exception("search index is not kept on disk")

    def entry(self, digest: bytes) -> Entry | None:
        """Return what is known of a body."""
        found = self._one("SELECT impacts, fast FROM entries WHERE digest = ?", (digest,))
        return Entry(_decode(found[0]), PackedVector.from_bytes(found[1])) if found is not None else None

    def vector(self, digest: bytes, embedder: str) -> PackedVector | None:
        """Return a body's vector by an embedder."""
        found = self._one("SELECT vector FROM vectors WHERE digest = ? AND embedder = ?", (digest, embedder))
        return PackedVector.from_bytes(found[0]) if found is not None else None

    def embedders(self) -> list[str]:
        """Return the identities of all embedders there are vectors of."""
        if self._database is None:
            return []
        return [row[0] for row in self._database.execute("SELECT DISTINCT embedder FROM vectors")]

    def put_entry(self, digest: bytes, entry: Entry) -> None:
        """Keep what is known of a body."""
        self._write(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
            (digest, _encode(entry.impacts), entry.fast.to_bytes()),
        )

    def put_vector(self, digest: bytes, embedder: str, vector: PackedVector) -> None:
        """Keep a body's vector."""
        self._write("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", (embedder, digest, vector.to_bytes()))

    def keep_only(self, digests: set[bytes]) -> None:
        """Forget bodies that are registered no more."""
        if self._database is None:
            return
        for table in ("entries", "vectors"):
            known = {row[0] for row in self._database.execute(f"SELECT digest FROM {table}")}  # noqa: S608
            for digest in known - digests:
                self._write(f"DELETE FROM {table} WHERE digest = ?", (digest,))  # noqa: S608
        self.commit()

    def keep_only_embedder(self, embedder: str) -> None:
        """Forget the vectors of all other embedders."""
        self._write("DELETE FROM vectors WHERE embedder <> ?", (embedder,))
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

    def _one(self, query: str, values: tuple[object, ...]) -> tuple[bytes, ...] | None:
        if self._database is None:
            return None
        try:
            found: tuple[bytes, ...] | None = self._database.execute(query, values).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return found

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        if self._database is None:
            return
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            self._give_up(error)
            return
        self._writes += 1
        if self._writes >= _WRITES_TOGETHER:
            self.commit()

    def _give_up(self, error: sqlite3.Error) -> None:
        _log.warning("search index is kept on disk no more, and made anew at the next start: %s", error)
        self._database = None


def _open(file: Path, fast: str) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(file, check_same_thread=False)
    database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")
    database.execute("CREATE TABLE IF NOT EXISTS format (version INTEGER, fast TEXT)")
    known = database.execute("SELECT version, fast FROM format").fetchone()
    if known != (_FORMAT, fast):
        database.executescript(
            "DROP TABLE IF EXISTS entries; DROP TABLE IF EXISTS vectors; DELETE FROM format;"
        )
        database.execute("INSERT INTO format VALUES (?, ?)", (_FORMAT, fast))
    database.executescript(
        "CREATE TABLE IF NOT EXISTS entries (digest BLOB PRIMARY KEY, impacts BLOB, fast BLOB) WITHOUT ROWID;"
        "CREATE TABLE IF NOT EXISTS vectors (embedder TEXT, digest BLOB, vector BLOB,"
        " PRIMARY KEY (embedder, digest)) WITHOUT ROWID;"
    )
    database.commit()
    return database
