"""A data folder says what it is, and nothing else is taken for one."""

from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from mq9_broker.engine import Engine, EngineLimits, FormatError
from mq9_broker.store import Batch, DataFolder, FolderError, MemoryStore, Reserve


def test_a_new_folder_is_made_and_opened_again(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "a" / "b")
    for _ in range(2):
        folder.prepare()
        folder.check()
        store = folder.open_store(2**20)
        Engine(store, EngineLimits())
        store.close()
    assert (tmp_path / "a/b/FORMAT").read_text() == "mq9 data folder, format 1\n"
    assert (tmp_path / "a/b/reserve").stat().st_size == 2**20


def test_a_mount_point_is_new(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    DataFolder(tmp_path).prepare()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mq9 data folder, format 2\n", "format 2, of a newer version"),
        ("something else\n", "no mq9 data folder: its file FORMAT is something else"),
        ("", "no mq9 data folder: its file FORMAT is something else"),
    ],
)
def test_another_format_is_refused_and_untouched(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "FORMAT").write_text(text)
    with pytest.raises(FolderError, match=message):
        DataFolder(tmp_path).prepare()
    with pytest.raises(FolderError, match=message):
        DataFolder(tmp_path).check()
    assert [path.name for path in tmp_path.iterdir()] == ["FORMAT"]


def test_a_folder_with_other_things_is_refused_and_untouched(tmp_path: Path) -> None:
    for name in ("x.txt", "photos", "b", "a"):
        (tmp_path / name).mkdir()
    with pytest.raises(FolderError, match=r"not empty \(a, b, photos, \.\.\.\)"):
        DataFolder(tmp_path).prepare()
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(FolderError, match="no file FORMAT"):
        DataFolder(tmp_path).check()


def test_a_folder_from_before_there_was_a_mark_is_taken(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    store = folder.open_store()
    Engine(store, EngineLimits())
    store.close()
    folder.prepare()
    assert (tmp_path / "FORMAT").exists()


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    other = Rdict(str(tmp_path / "store"), Options(raw_mode=True))
    other[b"key"] = b"value"
    other.close()
    folder = DataFolder(tmp_path)
    folder.prepare()
    store = folder.open_store()
    with pytest.raises(FormatError, match="not written by mq9-broker"):
        Engine(store, EngineLimits())
    assert store.get(b"\x00format") is None
    store.close()


def test_a_store_of_a_newer_engine_is_refused() -> None:
    store = MemoryStore()
    store.write(Batch((), [(b"\x00format", b"mq9 2")]))
    with pytest.raises(FormatError, match="the store has format 'mq9 2'"):
        Engine(store, EngineLimits())


def test_a_folder_is_opened_once(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.prepare()
    store = folder.open_store()
    with pytest.raises(FolderError, match="another process, such as a second broker, has it open"):
        folder.open_store()
    store.close()
    folder.open_store().close()


def test_reserve(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve", 100_000)
    reserve.take()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 100_000
    reserve.take()
    reserve.release()
    reserve.release()
    assert not (tmp_path / "reserve").exists()
    Reserve(tmp_path / "none", 0).take()
    assert not (tmp_path / "none").exists()
