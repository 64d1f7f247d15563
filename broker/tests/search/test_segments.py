"""Postings: whatever is merged, in whatever order, they are those of the documents, ascending."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mq9_broker.search.segments import Segment, gone_of, merged, segment_of

DOCUMENTS = st.dictionaries(st.integers(0, 60), st.sets(st.integers(0, 12), max_size=8), max_size=40)


def segment(documents: dict[int, set[int]]) -> Segment:
    """What some documents become, in the order that they are given in."""
    pairs = [(word, row) for row, words in documents.items() for word in words]
    words, rows = np.array(pairs, np.int64).reshape(-1, 2).T
    impacts = (words * 100 + rows).astype(np.float32)
    return segment_of(words.astype(np.uint32), rows.astype(np.int32), impacts)


def expect(found: Segment, documents: dict[int, set[int]]) -> None:
    """It has the words of these documents and of no others."""
    words = sorted(set().union(*documents.values()))
    assert found.words.tolist() == words
    for word in words:
        where = found.where(word)
        rows = found.rows[where].tolist()
        assert rows == sorted(row for row, those in documents.items() if word in those)
        assert found.impacts[where].tolist() == [word * 100 + row for row in rows]


@given(DOCUMENTS, st.lists(st.integers(0, 3), min_size=61, max_size=61), st.randoms())
def test_a_merge_has_what_its_segments_have(documents: dict[int, set[int]], parts: list[int], random) -> None:
    shuffled = list(documents.items())
    random.shuffle(shuffled)
    segments = [segment({row: words for row, words in shuffled if parts[row] == part}) for part in range(4)]
    expect(merged(segments, None), documents)
    alive = np.array([random.random() < 0.7 for _ in range(61)])
    kept = {row: words for row, words in documents.items() if alive[row]}
    expect(merged(segments, alive), kept)


@given(st.sets(st.integers(0, 400)), st.sets(st.integers(0, 400)))
def test_those_that_are_gone_are_counted(rows: set[int], gone: set[int]) -> None:
    alive = np.array([row not in gone for row in range(401)])
    found = gone_of(alive)
    assert (found is None) == (not gone)
    if found is not None:
        assert found.rows.tolist() == sorted(gone)
        assert found.among(np.array(sorted(rows), np.int32)) == len(rows & gone)
