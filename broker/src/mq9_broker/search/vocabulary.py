"""The words of the keyword index, each by a number, so that documents and postings are arrays."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sortedcontainers import SortedList  # type: ignore[import-untyped]

from mq9_broker import native
from mq9_broker.search.words import MAX_JOINED, MAX_WORD, compounds, words_of_compound

Numbers = NDArray[np.uint32]

# Words that a prefix stands for, at most.
_MOST_COMPLETIONS: Final = 256
# Compounds whose words are remembered: most texts are made of the same ones.
_MOST_REMEMBERED: Final = 50_000
_LONGEST_REMEMBERED: Final = 48
# 32,768 words of up to 23 characters: what most texts are made of.
_KNOWN_BYTES: Final = 2**20


class Collected:
    """Words of texts, one text after the other.

    Attributes:
        words: The numbers of all.
        lengths: How many each text has.
        weights: How much they count in each.
    """

    def __init__(self) -> None:
        self.words = array("I")
        self.lengths = array("I")
        self.weights = array("d")


class _Numbers(dict[str, int]):
    """Numbers by word; a word that has none gets the next one, and goes to the end of a list."""

    def __init__(self, words: list[str]) -> None:
        super().__init__((word, number) for number, word in enumerate(words))
        self._words = words

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self._words)
        self._words.append(word)
        return number


class Vocabulary:
    """Words by number and numbers by word."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._numbers = _Numbers(self._words)
        self._remembered: dict[str, tuple[int, ...]] = {}
        # Numbers of words as compiled code finds them.
        self._known = bytearray(_KNOWN_BYTES)
        self._sorted: SortedList[str] = SortedList()
        # Words before this one are sorted.
        self._sorted_to = 0

    def __len__(self) -> int:
        """The number of different words."""
        return len(self._words)

    @property
    def spelling(self) -> list[str]:
        """Words by number. It gets longer; what stands in it stays, even when words get other numbers."""
        return self._words

    def all(self) -> list[str]:
        """Return all words, in the order of their numbers."""
        return self._words.copy()

    def restore(self, words: list[str]) -> None:
        """Take what `all` returned, instead of what is here."""
        self._words = words
        self._numbers = _Numbers(words)
        self._remembered.clear()
        self._known = bytearray(_KNOWN_BYTES)
        self._sorted = SortedList()
        self._sorted_to = 0

    def add(self, fields: Sequence[tuple[str, float]], to: Collected) -> None:
        """Add the words of texts, repeats included; new ones get a number.

        Args:
            fields: The texts, and how much the words count in each.
            to: Where their numbers are added.
        """
        if native.words_of_fields is not None:
            numbers, lengths, weights = native.words_of_fields(
                tuple(fields), self._numbers, self._words, self._known, MAX_WORD, MAX_JOINED, self._of_text
            )
            to.words.frombytes(numbers)
            to.lengths.frombytes(lengths)
            to.weights.frombytes(weights)
            return
        for text, weight in fields:
            words = self._of_text(text)
            to.words.extend(words)
            to.lengths.append(len(words))
            to.weights.append(weight)

    def _of_text(self, text: str) -> array[int]:
        found = array("I")
        remembered = self._remembered
        for compound in compounds(text):
            known = remembered.get(compound)
            if known is None:
                known = tuple(self.of_words(words_of_compound(compound)))
                if len(compound) <= _LONGEST_REMEMBERED:
                    if len(remembered) >= _MOST_REMEMBERED:
                        remembered.clear()
                    remembered[compound] = known
            found.extend(known)
        return found

    def of_words(self, words: Sequence[str]) -> list[int]:
        """Return the numbers of words; new ones get one."""
        return list(map(self._numbers.__getitem__, words))

    def find(self, word: str) -> int | None:
        """Return the number of a word, if it has one."""
        return self._numbers.get(word)

    @property
    def unsorted(self) -> int:
        """The number of words that came since the last `sort`."""
        return len(self._words) - self._sorted_to

    def sort(self) -> None:
        """Take the words that came since the last time in order."""
        if self.unsorted:
            self._sorted.update(self._words[self._sorted_to :])
            self._sorted_to = len(self._words)

    def completions(self, prefix: str) -> list[int]:
        """Return the words that begin with a prefix, itself included, in their order."""
        self.sort()
        found: list[int] = []
        for word in self._sorted.irange(prefix, prefix + "\U0010ffff"):
            found.append(self._numbers[word])
            if len(found) == _MOST_COMPLETIONS:
                break
        return found

    def keep_only(self, numbers: Numbers) -> NDArray[np.int64]:
        """Forget all other words, and number the rest again, in the same order.

        Args:
            numbers: Words to keep, ascending.

        Returns:
            The new number of each old one; of a word that is forgotten, -1.
        """
        renumbered = np.full(len(self._words), -1, np.int64)
        renumbered[numbers] = np.arange(len(numbers))
        words = self._words
        self._words = [words[number] for number in numbers.tolist()]
        self._numbers = _Numbers(self._words)
        self._remembered.clear()
        self._known = bytearray(_KNOWN_BYTES)
        self._sorted = SortedList(self._words)
        self._sorted_to = len(self._words)
        return renumbered
