"""The compiled forms of some inner loops, where there are any.

They are built from the folder native/ beside the sources where there is a C compiler. Without them the same
is done in Python, with the same results and more time. `MQ9_PURE=1` in the environment leaves them aside.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from typing import Protocol

from mq9_broker.store.sorted_map import OrderedBytes, SortedMap

Requests = list[tuple[bytes, bytes | None, bytes | None, bytes]]

new_map: Callable[[], OrderedBytes] = SortedMap
"""Makes an empty ordered map of bytes."""

take_requests: Callable[[bytes, bytes, int, int], tuple[Requests, int]] | None = None
"""Reads requests in the usual form off the front of what a client sent; None = only Python can.

Takes the data, what their subjects begin with, the most bytes of a message and of a line without its LF;
gives them and the position where they end.
"""

consecutive_ids: Callable[[bytes, int], tuple[str, int, int] | None] | None = None
"""Reads the body of an ACK that names consecutive ids, or msg_id; None = only Python can.

Takes the body and how many ids there may be; gives group_name, the first id and the last, or for msg_id that
and -1. None where it is not plainly such a body: then it may be right or wrong.
"""

render_run: Callable[[bytes, int, int, int, bytes, int], bytes | None] | None = None
"""Makes the JSON of messages of a run as `rendering.run_json` does; None = only Python can.

Takes the run's JSON, the position of the first message in it, how many, the first one's id, what follows
each payload, and how long the text must not become; gives None if it would.
"""


class Begun(Protocol):
    """Something that another thread may be at."""

    def finish(self) -> None:
        """Do what is left of it; then all results are there."""


compare_nibbles: Callable[[memoryview, memoryview, memoryview, memoryview, float, float], Begun] | None = None
"""Begins to multiply a vector with many that have four bits a number; None = Python has to do without.

Takes the vector (eight bits a number, a multiple of 64 numbers), the rows (of each 64 numbers the first 32
are the lower halves of 32 bytes), the scale of each as a 32-bit float, where the results are written as such,
an offset and a factor. The result of a row is its sum less the offset, times its scale and the factor. A
thread that does not need the interpreter begins with it, if it is free; other threads go on during `finish`.
Until then nothing of what was given may change.
"""

multiply_halves: Callable[[memoryview, memoryview, memoryview, int], None] | None = None
"""Multiplies rows with a matrix of 16-bit floats; None = not on this processor.

Takes the rows (32-bit floats), the matrix (in panels of 16 columns each, a panel row by row), where the
products are written (32-bit floats, a row for each), and how many numbers a row has. What comes out is summed
in 32 bits.
"""

words_of_fields: (
    Callable[
        [
            tuple[tuple[str, float], ...],
            dict[str, int],
            list[str],
            bytearray,
            int,
            int,
            Callable[[str], array[int]],
        ],
        tuple[bytes, bytes, bytes],
    ]
    | None
) = None
"""Finds the words of a document's texts as `search.words` says; None = only Python can.

Takes the texts, each with its weight, numbers by word, words by number (both get the words that are new),
places for words that have a number (32 bytes each, a power of two; all 0 at first, and again when words get
other numbers), the most characters of a word, the most words that are joined to one, and what finds the words
of a text that is not ASCII, 32-bit numbers. Gives the numbers of all words as such, how many each text has as
such, and the weights as doubles.
"""

IS_COMPILED: bool
"""Whether there are any."""

try:
    if os.environ.get("MQ9_PURE"):
        raise ImportError("not wanted")
    from mq9_broker import _native
except ImportError:
    IS_COMPILED = False
else:
    IS_COMPILED = True
    new_map = _native.SortedMap
    take_requests = _native.take_requests
    consecutive_ids = _native.consecutive_ids
    render_run = _native.render_run
    words_of_fields = _native.words_of_fields
    compare_nibbles = _native.NibbleComparison
    multiply_halves = _native.multiply_halves
