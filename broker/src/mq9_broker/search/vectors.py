"""Vectors of documents, eight bits a number, all compared with a query's one by one.

Where there is compiled code for it, the upper four bits of each number are kept a second time, by themselves:
half the memory to read for a cosine that is off by no more than a known bound. So most documents need not be
compared exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import simsimd
from numpy.typing import NDArray

from mq9_broker import native
from mq9_broker.search.embedders import Vectors
from mq9_broker.search.segments import Gone

_FIRST_CAPACITY: Final = 1024
# Bytes of which half is read in another thread: fewer take less than a millisecond or two.
_LEAST_FOR_TWO: Final = 2**24
# Rows that are set at once.
_SET_TOGETHER: Final = 1_024


# Numbers whose upper halves stand in so many bytes: those of the first 32, and in the upper four bits those
# of the others.
_BLOCK: Final = 64
_BLOCK_BYTES: Final = 32
# A number is 16 times its upper half (from 0) and this, and what is missing is from -7.5 to 7.5.
_MIDDLE: Final = 120.5
_MOST_MISSING: Final = 7.5

# A vector of length 1: what 1 is worth as a 32-bit float, then whole numbers from -127 to 127.
Packed = bytes
_SCALE_SIZE: Final = 4


def pack(vectors: Vectors) -> list[Packed]:
    """Return some vectors packed."""
    scales = (np.abs(vectors).max(axis=1, initial=0.0) / np.float32(127)).astype(np.float32)
    numbers = np.rint(vectors / np.where(scales > 0, scales, np.float32(1))[:, None]).astype(np.int8)
    data = np.concatenate((scales[:, None].view(np.int8), numbers), axis=1)
    return [row.tobytes() for row in data]


def rounded(query: Vectors) -> tuple[NDArray[np.int8], np.float32]:
    """Return a query's vector as it is compared: whole numbers, and what 1 is worth."""
    scale = np.float32(max(float(np.abs(query).max(initial=0.0)), 1e-9) / 127)
    return np.rint(query / scale).astype(np.int8), scale


def dimensions_of(packed: Packed) -> int:
    """Return how many numbers a packed vector has."""
    return len(packed) - _SCALE_SIZE


class Estimates(NamedTuple):
    """Cosines, each off by no more than its bound.

    Attributes:
        cosines: By row; 0 where there is no vector.
        errors: By row, what the bound is for a query of length 1; 0 where there is no vector. Not a copy.
        length: The query's.
    """

    cosines: Vectors
    errors: Vectors
    length: np.float32

    def bounds(self, rows: NDArray[np.int64]) -> Vectors:
        """Return the bounds of some rows."""
        found: Vectors = self.errors[rows] * self.length
        return found

    @property
    def bound(self) -> float:
        """The largest of all bounds."""
        return float(self.errors.max(initial=0.0) * self.length)


@dataclass(frozen=True)
class Estimating:
    """Estimates that another thread may be at."""

    _estimates: Estimates
    _begun: native.Begun | None

    def finish(self) -> Estimates:
        """Return them, once all are there."""
        if self._begun is not None:
            self._begun.finish()
        return self._estimates


class ColumnParts(NamedTuple):
    """The vectors of some rows.

    Attributes:
        rows: The rows that have one, ascending.
        scales: Of each of them, what 1 is worth.
        numbers: And its numbers.
        ages: And how many vectors had been put with it.
        age: How many have been put in all, alone in an array.
    """

    rows: NDArray[np.int64]
    scales: NDArray[np.float32]
    numbers: NDArray[np.int8]
    ages: NDArray[np.int64]
    age: NDArray[np.int64]


class Column:
    """A vector for each of some rows, all made by one embedder.

    Attributes:
        identity: That embedder's.
        count: Rows that have a vector.
        age: How many vectors have been put.
    """

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.count = 0
        self.age = 0
        self._ages = np.zeros(0, np.int64)
        self._numbers = np.zeros((0, 0), np.int8)
        # What 1 is worth; 0 of a row that has no vector.
        self._scales = np.zeros(0, np.float32)
        self._has = np.zeros(0, np.bool_)
        # Upper halves of numbers, and of each row the length of what is missing in them.
        self._halves = np.zeros((0, 0), np.uint8)
        self._errors = np.zeros(0, np.float32)

    @property
    def dimensions(self) -> int:
        """Numbers of a vector, 0 while there is none."""
        return self._numbers.shape[1]

    def has(self, row: int) -> bool:
        """Whether a row has a vector."""
        return row < len(self._has) and bool(self._has[row])

    def get(self, row: int) -> Packed:
        """Return the vector of a row that has one."""
        data: bytes = self._scales[row].tobytes() + self._numbers[row].tobytes()
        return data

    def put(self, row: int, vector: Packed) -> None:
        """Set the vector of a row."""
        self.put_all([row], [vector])

    def put_all(self, rows: Sequence[int], vectors: Sequence[Packed]) -> None:
        """Set the vectors of some different rows; all have the same dimensions."""
        if not rows:
            return
        if not self.dimensions:
            self._begin(dimensions_of(vectors[0]))
        self._make_room(max(rows) + 1)
        places = np.array(rows)
        data = np.frombuffer(b"".join(vectors), np.int8).reshape(len(rows), -1)
        self._set(places, data[:, :_SCALE_SIZE].copy().view(np.float32)[:, 0], data[:, _SCALE_SIZE:])

    def _set(self, places: NDArray[np.int64], scales: Vectors, numbers: NDArray[np.int8]) -> None:
        self.count += len(places) - int(np.count_nonzero(self._has[places]))
        self._ages[places] = np.arange(self.age + 1, self.age + 1 + len(places))
        self.age += len(places)
        self._scales[places] = scales
        self._numbers[places] = numbers
        self._has[places] = True
        if native.compare_nibbles is not None:
            self._halves[places], missing = halved(numbers)
            self._errors[places] = missing * scales

    def parts(self) -> ColumnParts:
        """Return a copy of all there is."""
        rows = np.flatnonzero(self._has)
        age = np.array([self.age])
        return ColumnParts(rows, self._scales[rows], self._numbers[rows], self._ages[rows], age)

    def restore(self, parts: ColumnParts) -> None:
        """Set what `parts` returned, in a column that has nothing."""
        if not len(parts.rows):
            return
        self._begin(parts.numbers.shape[1])
        self._make_room(int(parts.rows[-1]) + 1)
        for start in range(0, len(parts.rows), _SET_TOGETHER):
            some = slice(start, start + _SET_TOGETHER)
            self._set(parts.rows[some], parts.scales[some], parts.numbers[some])
        self._ages[parts.rows] = parts.ages
        self.age = int(parts.age[0])

    def _begin(self, dimensions: int) -> None:
        self._numbers = np.zeros((0, dimensions), np.int8)
        self._halves = np.zeros((0, _halves_size(dimensions)), np.uint8)

    def _make_room(self, rows: int) -> None:
        known = len(self._has)
        if rows > known:
            capacity = max(rows, known + known // 2, _FIRST_CAPACITY)
            self._numbers = _longer(self._numbers, capacity)
            self._scales = _longer(self._scales, capacity)
            if native.compare_nibbles is not None:
                self._halves = _longer(self._halves, capacity)
            self._errors = _longer(self._errors, capacity)
            self._has = _longer(self._has, capacity)
            self._ages = _longer(self._ages, capacity)

    def remove(self, row: int) -> None:
        """Forget the vector of a row."""
        if self.has(row):
            self.count -= 1
            self._has[row] = False
            self._scales[row] = 0
            self._ages[row] = 0
            self._errors[row] = 0

    def compare(self, query: Vectors, rows: int) -> Vectors:
        """Return the cosine of each of the first rows with a query; 0 where there is no vector."""
        found = np.zeros(rows, np.float32)
        size = min(rows, len(self._has))
        if not size or not self._compares(query):
            return found
        numbers, scale = rounded(query)

        def compare(part: slice) -> None:
            products = np.asarray(simsimd.cdist(numbers[None], self._numbers[part], "dot"))[0]
            np.multiply(products, self._scales[part] * scale, out=found[part], casting="same_kind")

        _in_halves(compare, size, self._numbers.shape[1])
        return found

    def compare_some(self, query: Vectors, rows: NDArray[np.int64]) -> Vectors:
        """Return what `compare` finds for some rows."""
        found = np.zeros(len(rows), np.float32)
        places = np.flatnonzero(rows < len(self._has))
        if not self._compares(query) or not len(places):
            return found
        numbers, scale = rounded(query)
        rows = rows[places]
        products = np.asarray(simsimd.cdist(numbers[None], self._numbers[rows], "dot"))[0]
        found[places] = products * (self._scales[rows] * scale)
        return found

    def begin_estimate(self, query: Vectors, rows: int) -> Estimating | None:
        """Begin to find about what `compare` does, in less than half the time; None: there is no code for it.

        Nothing may be put or removed before it has been finished.
        """
        if native.compare_nibbles is None:
            return None
        size = min(rows, len(self._has)) if self._compares(query) else 0
        cosines = np.empty(rows, np.float32)
        cosines[size:] = 0
        errors = self._errors[:rows] if size >= rows else _longer(self._errors[:size], rows)
        if not size:
            return Estimating(Estimates(cosines, errors, np.float32(0)), None)
        numbers, scale = rounded(query)
        padded = np.zeros(2 * self._halves.shape[1], np.int8)
        padded[: len(numbers)] = numbers
        begun = native.compare_nibbles(
            padded.data,
            self._halves[:size].data,
            self._scales[:size].data,
            cosines[:size].data,
            _MIDDLE / 16 * int(numbers.sum(dtype=np.int64)),
            16 * float(scale),
        )
        length = np.float32(np.linalg.norm(numbers.astype(np.float32)) * scale)
        return Estimating(Estimates(cosines, errors, length), begun)

    def estimate(self, query: Vectors, rows: int) -> Estimates | None:
        """Do what `begin_estimate` begins."""
        estimating = self.begin_estimate(query, rows)
        return estimating.finish() if estimating is not None else None

    def _compares(self, query: Vectors) -> bool:
        """Whether there is anything that a query can be compared with."""
        return self.count > 0 and len(query) == self.dimensions

    def missing(self, rows: int, age: int, gone: Gone | None) -> NDArray[np.bool_] | None:
        """Return which of the first rows have no vector, or one that came after the column was so old.

        None: all have one, but those that are gone.
        """
        size = min(rows, len(self._has))
        found = np.ones(rows, np.bool_)
        found[:size] = ~self._has[:size]
        if age < self.age:
            found[:size] |= self._ages[:size] > age
        if gone is not None:
            found[gone.rows] = False
        return found if found.any() else None


def _halves_size(dimensions: int) -> int:
    return -(-dimensions // _BLOCK) * _BLOCK_BYTES


def halved(numbers: NDArray[np.int8]) -> tuple[NDArray[np.uint8], Vectors]:
    """Return the upper halves of the numbers of some rows, and the length of what is missing of each."""
    positive = numbers.view(np.uint8) ^ np.uint8(0x80)
    missing = (positive & 15).astype(np.float32) - np.float32(_MOST_MISSING)
    padded = np.zeros((len(numbers), 2 * _halves_size(numbers.shape[1])), np.uint8)
    padded[:, : numbers.shape[1]] = positive
    blocks = padded.reshape(len(numbers), -1, 2, _BLOCK_BYTES)
    halves: NDArray[np.uint8] = blocks[:, :, 0] >> 4 | blocks[:, :, 1] & np.uint8(0xF0)
    return halves.reshape(len(numbers), -1), np.sqrt(np.einsum("ij,ij->i", missing, missing))


def _in_halves(compare: Callable[[slice], None], rows: int, row_bytes: int) -> None:
    """Compare rows; half of them on another processor, if it has nothing to do and there are many."""
    if rows * row_bytes < _LEAST_FOR_TWO:
        compare(slice(0, rows))
        return
    other = _other_thread().submit(compare, slice(rows // 2, rows))
    compare(slice(0, rows // 2))
    other.result()


@functools.cache
def _other_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "compare")


def _longer(array: NDArray[Any], size: int) -> NDArray[Any]:
    longer = np.zeros((size, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
