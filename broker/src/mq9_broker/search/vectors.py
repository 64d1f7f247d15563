"""Vectors of documents, eight bits a number, all compared with a query's one by one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import simsimd
from numpy.typing import NDArray

from mq9_broker.search.embedders import Vectors

_FIRST_CAPACITY: Final = 1024
# Rows of which half is compared in another thread: fewer take less than a millisecond or two.
_LEAST_FOR_TWO: Final = 32_768


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
            self._numbers = np.zeros((0, dimensions_of(vectors[0])), np.int8)
        self._make_room(max(rows) + 1)
        places = np.array(rows)
        self.count += len(rows) - int(np.count_nonzero(self._has[places]))
        self._ages[places] = np.arange(self.age + 1, self.age + 1 + len(rows))
        self.age += len(rows)
        data = np.frombuffer(b"".join(vectors), np.int8).reshape(len(rows), -1)
        self._scales[places] = data[:, :_SCALE_SIZE].copy().view(np.float32)[:, 0]
        self._numbers[places] = data[:, _SCALE_SIZE:]
        self._has[places] = True

    def _make_room(self, rows: int) -> None:
        known = len(self._has)
        if rows > known:
            capacity = max(rows, known + known // 2, _FIRST_CAPACITY)
            self._numbers = _longer(self._numbers, capacity)
            self._scales = _longer(self._scales, capacity)
            self._has = _longer(self._has, capacity)
            self._ages = _longer(self._ages, capacity)

    def remove(self, row: int) -> None:
        """Forget the vector of a row."""
        if self.has(row):
            self.count -= 1
            self._has[row] = False
            self._scales[row] = 0
            self._ages[row] = 0

    def compare(self, query: Vectors, rows: int) -> Vectors:
        """Return the cosine of each of the first rows with a query; 0 where there is no vector."""
        found = np.zeros(rows, np.float32)
        size = min(rows, len(self._has))
        if not self.count or not size or len(query) != self.dimensions:
            return found
        numbers, scale = rounded(query)

        def compare(part: slice) -> None:
            products = np.asarray(simsimd.cdist(numbers[None], self._numbers[part], "dot"))[0]
            np.multiply(products, self._scales[part] * scale, out=found[part], casting="same_kind")

        if size < _LEAST_FOR_TWO:
            compare(slice(0, size))
            return found
        # Another processor, if it has nothing to do, takes half of it.
        other = _other_thread().submit(compare, slice(size // 2, size))
        compare(slice(0, size // 2))
        other.result()
        return found

    def missing(self, rows: int, age: int) -> NDArray[np.bool_] | None:
        """Return which of the first rows have no vector, or one that came after the column was so old.

        None: it has one for every row that ever was one of them and is not gone.
        """
        size = min(rows, len(self._has))
        found = np.ones(rows, np.bool_)
        found[:size] = ~self._has[:size]
        if age < self.age:
            found[:size] |= self._ages[:size] > age
        return found if found.any() else None


@functools.cache
def _other_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "compare")


def _longer(array: NDArray[Any], size: int) -> NDArray[Any]:
    longer = np.zeros((size, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
