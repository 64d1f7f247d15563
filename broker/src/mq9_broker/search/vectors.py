"""Vectors of documents, eight bits a number, all compared with a query's one by one."""

from __future__ import annotations

from typing import Final

import numpy as np
import simsimd
from numpy.typing import NDArray

from mq9_broker.search.embedders import Vectors

_FIRST_CAPACITY: Final = 1024


class PackedVector:
    """A vector of length 1 as whole numbers from -127 to 127 and what one of them is worth.

    Attributes:
        numbers: The numbers.
        scale: The worth of 1.
    """

    __slots__ = ("numbers", "scale")

    def __init__(self, vector: Vectors) -> None:
        largest = float(np.abs(vector).max(initial=0.0))
        self.scale = np.float32(largest / 127)
        self.numbers: NDArray[np.int8] = np.rint(vector / (self.scale or 1.0)).astype(np.int8)

    def to_bytes(self) -> bytes:
        """Return it as bytes."""
        data: bytes = self.scale.tobytes() + self.numbers.tobytes()
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> PackedVector:
        """Return what `to_bytes` made bytes of."""
        made = cls.__new__(cls)
        made.scale = np.frombuffer(data, np.float32, 1)[0]
        made.numbers = np.frombuffer(data, np.int8, offset=4)
        return made


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
        self._scales = np.zeros(0, np.float32)
        self._has = np.zeros(0, np.bool_)

    def put(self, row: int, vector: PackedVector) -> None:
        """Set the vector of a row."""
        size = len(vector.numbers)
        if size != self._numbers.shape[1]:
            # The first vector; or an endpoint changed its mind, and what it said before compares with
            # nothing.
            capacity = max(len(self._has), _FIRST_CAPACITY)
            self._numbers = np.zeros((capacity, size), np.int8)
            self._scales = np.zeros(capacity, np.float32)
            self._has = np.zeros(capacity, np.bool_)
            self._ages = np.zeros(capacity, np.int64)
            self.count = 0
        if row >= len(self._has):
            more = max(row + 1 - len(self._has), len(self._has) // 2)
            self._numbers = np.concatenate((self._numbers, np.zeros((more, size), np.int8)))
            self._scales = np.concatenate((self._scales, np.zeros(more, np.float32)))
            self._has = np.concatenate((self._has, np.zeros(more, np.bool_)))
            self._ages = np.concatenate((self._ages, np.zeros(more, np.int64)))
        self.count += not self._has[row]
        self.age += 1
        self._ages[row] = self.age
        self._numbers[row] = vector.numbers
        self._scales[row] = vector.scale
        self._has[row] = True

    def remove(self, row: int) -> None:
        """Forget the vector of a row."""
        if row < len(self._has) and self._has[row]:
            self.count -= 1
            self._has[row] = False

    def compare(self, query: PackedVector, rows: int, age: int | None = None) -> Vectors:
        """Return the cosine of each of the first rows with a query; NaN where there is no vector.

        Args:
            query: The query's vector.
            rows: How many rows.
            age: Vectors that came after the column was so old count as not there.
        """
        found = np.full(rows, np.nan, np.float32)
        size = min(rows, len(self._has))
        if not self.count or not size or len(query.numbers) != self._numbers.shape[1]:
            return found
        products = np.asarray(simsimd.cdist(query.numbers[None], self._numbers[:size], "dot"))[0]
        cosines = products.astype(np.float32) * self._scales[:size] * query.scale
        there = self._has[:size] if age is None else self._has[:size] & (self._ages[:size] <= age)
        found[:size] = np.where(there, cosines, np.float32(np.nan))
        return found
