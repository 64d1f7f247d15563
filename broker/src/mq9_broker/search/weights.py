"""The weights of an embedder, laid out for texts that are short.

A question has a dozen tokens. A library that multiplies matrices of any size spends most of the time with so
few rows on getting the weights ready, again for each text; `native.multiply_halves` has them ready, in half
as many bytes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mq9_broker import native

_PANEL: Final = 16
# Matrices of the Universal Sentence Encoder as the library keeps them: single ones, and lists of them.
_MATRICES: Final = ("proj_W", "cnn_W", "d0", "d1", "d2", "d3", "p1", "p3")
_LISTS: Final = ("w1", "w2")


class HalfWeights:
    """A matrix of 16-bit floats that is multiplied from its right: `rows @ weights`.

    Args:
        weights: The matrix; the number of its columns is a multiple of 16.
    """

    # Or numpy would take it for a number.
    __array_ufunc__ = None

    def __init__(self, weights: NDArray[np.float32]) -> None:
        self._depth, self._columns = weights.shape
        panels = weights.reshape(self._depth, -1, _PANEL).transpose(1, 0, 2)
        self._panels = np.ascontiguousarray(panels, np.float16).data.cast("B")

    def __rmatmul__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the products."""
        assert native.multiply_halves is not None
        found = np.empty((len(rows), self._columns), np.float32)
        if len(rows):
            native.multiply_halves(np.ascontiguousarray(rows).data, self._panels, found.data, self._depth)
        return found


def lay_out(encoder: Any) -> None:
    """Replace the weights of a multilingual encoder of the library, where this processor can multiply them.

    Args:
        encoder: The library's part with the weights.
    """
    if native.multiply_halves is None:
        return
    for name in _MATRICES:
        setattr(encoder, name, HalfWeights(getattr(encoder, name)))
    for name in _LISTS:
        setattr(encoder, name, [HalfWeights(weights) for weights in getattr(encoder, name)])
