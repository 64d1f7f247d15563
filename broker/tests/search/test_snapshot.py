"""The whole index is kept in one file: the next start answers as before, whatever changed or was damaged."""

import pickle
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mq9_broker.search import indexed
from mq9_broker.search.inline import InlineSearch
from mq9_broker.search.interface import Hit
from mq9_broker.search.settings import SearchSettings
from mq9_broker.search.snapshot import read, write
from mq9_broker.search.vectors import Column, pack
from mq9_broker.search.worker import open_index

from .support import Registry, eventually
from .test_process import searching

KINDS = ["weather forecast", "railway timetables", "taxes and payroll", "查询地图和路线"]
QUESTIONS = ["weather", "will it rain", "n7", "地图", "unit5 forecast", "taxes n1"]


def text_of(number: int) -> str:
    return f"{KINDS[number % 4]} unit{number // 4}"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a snapshot of agents, some of which were removed, and no other trace of them."""
    folder = tmp_path_factory.mktemp("search")
    found = Registry(SearchSettings(cache=str(folder)))
    for number in range(60):
        found.put(f"n{number}", description=text_of(number))
    found.search.embed_all()
    for number in range(50, 60):
        found.remove(f"n{number}")
    save(found)
    found.search.close()
    for file in folder.glob("search.sqlite*"):
        file.unlink()
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "search"))


@pytest.fixture(scope="module")
def fresh() -> Iterator[Registry]:
    """The same agents in an index that was made anew."""
    found = Registry(SearchSettings())
    for number in range(50):
        found.put(f"n{number}", description=text_of(number))
    found.search.embed_all()
    yield found
    found.search.close()


def save(registry: Registry) -> None:
    file = registry.search.index.snapshot_file
    assert file is not None
    write(file, registry.search.index.snapshot())


def again(folder: Path, agents: Registry, **changed: str) -> Registry:
    """Another start, with the agents of a registry of which some have another description, or none."""
    found = Registry(SearchSettings(cache=str(folder)))
    found.agents.update(agents.agents)
    for name, text in changed.items():
        if text:
            found.agents[name] = b'{"name":"%s","description":"%s"}' % (name.encode(), text.encode())
        else:
            del found.agents[name]
    found.search.start()
    return found


def answers(registry: Registry) -> list[list[Hit]]:
    return [registry.hits(text, by_meaning=by_meaning) for text in QUESTIONS for by_meaning in (False, True)]


def close_to(found: list[list[Hit]], expected: list[list[Hit]]) -> None:
    """Vectors of texts that are embedded together differ in the last digits."""
    for some, others in zip(found, expected, strict=True):
        assert {hit.name for hit in some} == {hit.name for hit in others}
        scores = {hit.name: hit.score for hit in others}
        assert all(hit.score == pytest.approx(scores[hit.name], abs=2e-2) for hit in some)


def test_the_next_start_makes_nothing(folder: Path, fresh: Registry) -> None:
    found = again(folder, fresh)
    index = found.search.index
    assert (len(index), index.soon, index.waiting, index.wants_snapshot) == (50, 0, 0, False)
    close_to(answers(found), answers(fresh))
    # As often as one likes, and from what it was made of again.
    expected = answers(found)
    save(found)
    found.search.close()
    assert answers(again(folder, fresh)) == expected


def test_what_changed_meanwhile_is_made(folder: Path, fresh: Registry) -> None:
    changed = {"n3": "sells zithers", "n4": "", "n55": text_of(55), "other": "weather in Oslo"}
    found = again(folder, fresh, **changed)
    index = found.search.index
    assert (len(index), index.soon) == (51, 3)
    found.search.embed_all()
    expected = Registry(SearchSettings())
    for name, body in found.agents.items():
        expected.put(name, body)
    expected.search.embed_all()
    close_to(answers(found), answers(expected))
    assert found.names("zithers") == ["n3"]
    assert "n4" not in found.names("unit1", by_meaning=True)
    # Rows of agents that are gone are used again.
    for number in range(3_000):
        found.put("often", description=f"version{number}")
        while index.has_work:
            index.work()
    assert index.capacity < 2_000
    assert found.names("version2999") == ["often"]
    assert found.names("zithers") == ["n3"]


def test_an_agent_twice_in_one_go_is_the_last_of_them(folder: Path, fresh: Registry) -> None:
    found = again(folder, fresh)
    body = found.agents["n1"]
    found.search.index.put_all([("n1", b'{"description":"zithers"}'), ("n1", body)])
    assert found.names("zithers") == []
    assert found.names("unit0 railway")[0] == "n1"
    assert len(found.search.index) == 50


@pytest.mark.parametrize("seed", range(25))
def test_a_damaged_file_does_no_harm(folder: Path, fresh: Registry, seed: int) -> None:
    file = folder / "index.npz"
    data = bytearray(file.read_bytes())
    chance = random.Random(seed)  # which damage is tried is no secret
    if seed % 5 == 0:
        del data[chance.randrange(len(data)) :]
    else:
        # The end has the names and places of all parts.
        start = 0 if seed % 2 else len(data) - 3_000
        for _ in range(chance.choice((1, 40))):
            data[chance.randrange(start, len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    found = again(folder, fresh)
    found.search.index.embed_soon()
    assert len(found.search.index) == 50
    assert {hit.name for hit in found.hits("unit7")} == {f"n{number}" for number in range(28, 32)}
    found.put("new", description="sells zithers")
    assert found.names("zithers") == ["new"]
    found.search.close()


@pytest.mark.parametrize("part", ["fast-numbers", "fast-scales", "segment-0-rows", "names", "better-age"])
def test_a_bit_of_a_header_is_enough_damage(folder: Path, part: str) -> None:
    file = folder / "index.npz"
    identity = open_index(SearchSettings(cache=str(folder))).snapshot().identity
    sound = file.read_bytes()
    expected = pickle.dumps(read(file, identity))
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f"{part}.npy")
    name = info.filename.encode()
    # What the part's form is, and its entry in the directory of the archive.
    header, entry = info.header_offset + 30 + len(name), sound.rindex(name) - 46
    for bit in (*range(8 * header, 8 * (header + 128)), *range(8 * entry, 8 * (entry + 46))):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        found = read(file, identity)
        assert found is None or pickle.dumps(found) == expected


def test_parts_that_do_not_belong_together_are_left_aside(folder: Path) -> None:
    file = folder / "index.npz"
    with np.load(file) as arrays:
        parts = dict(arrays)
    identity = open_index(SearchSettings(cache=str(folder))).snapshot().identity
    assert read(file, identity) is not None
    assert read(file, identity + "x") is None
    assert read(folder / "none", identity) is None
    for name in ("digests", "names", "segment-0-words", "better-numbers", "fast-rows"):
        np.savez(file, **{key: value for key, value in parts.items() if key != name})
        assert read(file, identity) is None
        for changed in (parts[name][:-1], parts[name][:0], np.concatenate((parts[name], parts[name]))):
            np.savez(file, **{**parts, name: changed})
            assert read(file, identity) is None, name


def test_a_file_that_cannot_be_written_is_left_out(tmp_path: Path, fresh: Registry) -> None:
    snapshot = fresh.search.index.snapshot()
    (tmp_path / "file").write_bytes(b"")
    assert not write(tmp_path / "file" / "index.npz", snapshot)
    (tmp_path / "index.npz").mkdir()
    assert not write(tmp_path / "index.npz", snapshot)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "index.npz"]


def test_what_was_not_written_is_wanted_again(tmp_path: Path) -> None:
    found = Registry(SearchSettings(cache=str(tmp_path)))
    for number in range(indexed.LEAST_UNSAVED + 1):
        found.put(f"n{number}", description=f"weather {number}")
    found.search.embed_all()
    index = found.search.index
    assert index.wants_snapshot
    index.snapshot()
    assert not index.wants_snapshot
    index.not_saved()
    assert index.wants_snapshot
    found.search.close()


def test_vectors_keep_their_ages() -> None:
    column = Column("x")
    column.put_all([3, 1], pack(np.eye(2, dtype=np.float32)))
    column.put(3, column.get(1))
    again = Column("x")
    again.restore(column.parts())
    assert again.age == column.age == 3
    for age in range(4):
        missing = again.missing(5, age, None)
        expected = column.missing(5, age, None)
        assert missing is not None
        assert expected is not None
        assert missing.tolist() == expected.tolist()


def test_another_embedder_does_not_use_it(folder: Path, fresh: Registry) -> None:
    settings = SearchSettings(cache=str(folder), embedder="http://127.0.0.1:1/v1")
    found = InlineSearch(fresh.agents, settings)
    assert len(found.index) == 0
    found.close()


async def test_the_process_keeps_it_when_all_is_quiet(tmp_path: Path) -> None:
    settings = SearchSettings(cache=str(tmp_path))
    count = indexed.LEAST_UNSAVED + 1
    file = tmp_path / "index.npz"
    async with searching(settings) as searcher:
        for number in range(count):
            searcher.put(f"n{number}", description=f"weather {number}")
        await eventually(file.exists)
        agents = searcher.agents
    (tmp_path / "search.sqlite").unlink()
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
    async with searching(settings, agents) as searcher:
        del agents["n7"]
        assert "n7" not in await searcher.names("weather 7")
        assert (await searcher.names("weather 8", by_meaning=True))[0] == "n8"
        await eventually(lambda: searcher.process.status is not None)
        assert searcher.process.status is not None
        assert searcher.process.status.waiting == 0
