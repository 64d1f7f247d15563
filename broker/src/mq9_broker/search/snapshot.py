"""The whole index in one file, beside what was made of each body: the next start only reads it.

Each agent is in it with the digest of its body, so whoever takes an agent again sees whether it is the same.
A file that is damaged or of another format is left aside; everything is then made as without it.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from mq9_broker.search.segments import Segment
from mq9_broker.search.vectors import ColumnParts

_log = logging.getLogger(__name__)

_DIGEST_SIZE: Final = 16
# Changes when an array is added or means something else.
_FORMAT: Final = 2

_head = msgspec.msgpack.Decoder(tuple[int, str, int])
_names = msgspec.msgpack.Decoder(list[str])


class Snapshot(NamedTuple):
    """What an index consists of, all its own: the index may change meanwhile.

    Attributes:
        identity: What made it; another one's parts cannot be used.
        names: Of each row, the name of its agent; empty: it has none.
        digests: Of each row, that of the agent's body.
        texts: Of each row, that of the texts that its better vector is made of.
        words: All words; their places are their numbers in segments.
        segments: The documents of each word.
        fast: Fast vectors.
        better: Better vectors.
    """

    identity: str
    names: list[str]
    digests: list[bytes]
    texts: list[bytes]
    words: list[str]
    segments: list[Segment]
    fast: ColumnParts
    better: ColumnParts


def write(file: Path, snapshot: Snapshot) -> bool:
    """Replace the file by a snapshot. It may be called in any thread.

    Returns:
        Whether it is there now; failure is logged.
    """
    # A type with Any: what `savez` is given by name may also be one of its options.
    arrays: dict[str, Any] = {
        "head": _packed([_FORMAT, snapshot.identity, len(snapshot.segments)]),
        "names": _packed(snapshot.names),
        "digests": _joined(snapshot.digests),
        "texts": _joined(snapshot.texts),
        "words": _packed(snapshot.words),
    }
    for place, segment in enumerate(snapshot.segments):
        arrays.update((f"segment-{place}-{name}", array) for name, array in segment._asdict().items())
    for name, column in (("fast", snapshot.fast), ("better", snapshot.better)):
        arrays.update((f"{name}-{part}", array) for part, array in column._asdict().items())
    fresh = file.with_name(file.name + ".new")
    try:
        with fresh.open("wb") as output:
            np.savez(output, **arrays)
        fresh.replace(file)
        return True
    except OSError as error:
        _log.warning("%s is not written: %s", file, error)
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        return False


def read(file: Path, identity: str) -> Snapshot | None:
    """Return what the file has; None: nothing that can be used.

    Args:
        file: The file.
        identity: What it must have been made by.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            # An archive has a checksum of each of its parts, looked at where a part is read to its end.
            damaged = arrays.zip.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            return _snapshot(arrays, identity)
    except FileNotFoundError:
        return None
    except Exception as error:  # damage raises what it likes; the index is made anew then
        _log.warning("%s cannot be used: %r", file, error)
        return None


def _snapshot(arrays: Any, identity: str) -> Snapshot | None:
    version, made_by, count = _head.decode(arrays["head"].data)
    if (version, made_by) != (_FORMAT, identity):
        return None
    segments = [
        Segment(*(arrays[f"segment-{place}-{name}"] for name in Segment._fields)) for place in range(count)
    ]
    fast, better = (
        ColumnParts(*(arrays[f"{name}-{part}"] for part in ColumnParts._fields))
        for name in ("fast", "better")
    )
    digests, texts = arrays["digests"], arrays["texts"]
    found = Snapshot(
        identity,
        _names.decode(arrays["names"].data),
        _split(digests),
        _split(texts),
        _names.decode(arrays["words"].data),
        segments,
        fast,
        better,
    )
    size = len(found.names)
    if not (
        len(digests) == len(texts) == _DIGEST_SIZE * size
        and all(_is_segment(segment, size, len(found.words)) for segment in segments)
        and all(_is_column(column, size) for column in (fast, better))
    ):
        raise ValueError("its parts do not belong together")
    return found


def _is_segment(segment: Segment, size: int, words: int) -> bool:
    return (
        len(segment.starts) == len(segment.words) + 1
        and segment.starts[0] == 0
        and len(segment.rows) == len(segment.impacts) == segment.starts[-1]
        and segment.words.max(initial=0) < max(words, 1)
        and 0 <= segment.rows.min(initial=0) <= segment.rows.max(initial=-1) < size
    )


def _is_column(column: ColumnParts, size: int) -> bool:
    rows = column.rows
    return (
        len(rows) == len(column.scales) == len(column.numbers) == len(column.ages)
        and len(column.age) == 1
        and column.numbers.ndim == 2
        and bool((np.diff(rows, prepend=-1) > 0).all())
        and rows.max(initial=-1) < size
    )


def _packed(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(msgspec.msgpack.encode(value), np.uint8)


def _joined(digests: list[bytes]) -> NDArray[np.uint8]:
    nothing = bytes(_DIGEST_SIZE)
    return np.frombuffer(b"".join(digest or nothing for digest in digests), np.uint8)


def _split(joined: NDArray[np.uint8]) -> list[bytes]:
    data = joined.tobytes()
    return [data[start : start + _DIGEST_SIZE] for start in range(0, len(data), _DIGEST_SIZE)]
