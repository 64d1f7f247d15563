"""What the commands `backup`, `restore`, `inspect` and `check` do."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from mq9_broker.control import ControlError, checkpoint_of
from mq9_broker.engine import FormatError, check_format
from mq9_broker.engine.checking import check_store
from mq9_broker.engine.engine import STORE_FORMAT
from mq9_broker.engine.records import Record, RecordError, decode_record, encode_record
from mq9_broker.store import Batch, DataFolder, FolderError, RocksdbStore, StoreUnavailableError
from mq9_broker.store.folder import sync_folder
from mq9_broker.version import __version__

_MANIFEST: Final = "backup.json"
_DUMP_VERSION: Final = 1
_BATCH: Final = 1_000
_PIECE: Final = 2**20
_EVERYTHING: Final = (b"", b"\xff" * 9)
_PROBLEMS_SHOWN: Final = 100


class CommandError(Exception):
    """A command could not do what it was asked for; the message says why and what to do."""


# Which store.


@contextlib.contextmanager
def _snapshot(data: Path) -> Iterator[Path]:
    """The folder of a store that nobody changes: of a running broker, a checkpoint."""
    folder = DataFolder(data)
    try:
        if not data.is_dir():
            raise CommandError(f"{data}: no such folder")
        folder.check()
        with checkpoint_of(folder) as checkpoint:
            if checkpoint is None and _is_locked(data / "store"):
                raise CommandError(
                    f"{data}: a process has it open that answers no requests by the file "
                    f"{folder.control.name!r} there: end it first"
                )
            yield data / "store" if checkpoint is None else checkpoint
    except (FolderError, ControlError) as error:
        raise CommandError(f"{data}: {error}") from None


def _is_locked(store: Path) -> bool:
    if os.name != "posix":
        return False
    import fcntl  # noqa: PLC0415  # not on Windows

    try:
        with (store / "LOCK").open("r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[RocksdbStore]:
    """A store, opened without changing it."""
    try:
        store = RocksdbStore(path, read_only=True)
    except Exception as error:  # rocksdict raises nothing more specific
        raise CommandError(f"{path}: cannot open the store: {error}") from None
    try:
        if not check_format(store):
            raise CommandError(f"{path}: the store is empty")
        yield store
    except (FormatError, StoreUnavailableError) as error:
        raise CommandError(f"{path}: {error}") from None
    finally:
        store.close()


def _records(store: RocksdbStore) -> Iterator[Record]:
    for key, value in store.scan(*_EVERYTHING):
        yield decode_record(key, value)


# backup


def backup(data: Path, target: str, json_lines: bool) -> None:
    """Copy a data folder, or dump it."""
    if json_lines:
        with _snapshot(data) as store, _reading(store) as reading:
            count = _dump(reading, target)
        _say(f"{count:,} records written to {'standard output' if target == '-' else target}")
        return
    if target == "-":
        raise CommandError("--to -: a copy is a folder; give --json-lines to write to standard output")
    folder = Path(target)
    _make_empty(folder, "--to")
    with _partial(folder) as partial:
        with _snapshot(data) as store:
            files = _copy(store, partial, "backed up")
        manifest = {"created": int(time.time()), "mq9_broker": __version__, "files": files}
        _write_whole(folder / _MANIFEST, json.dumps(manifest, indent=1).encode())
    _say(f"backup of {sum(size for size, _ in files.values()):,} bytes in {folder}")


def _make_empty(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = next((entry.name for entry in folder.iterdir() if entry.name != "lost+found"), None)
    except OSError as error:
        raise CommandError(f"{option} {folder}: {error.strerror}") from None
    if found is not None:
        raise CommandError(f"{option} {folder}: not empty (it has {found!r}): give an empty or a new folder")


def _copy(source: Path, target: Path, what: str) -> dict[str, tuple[int, str]]:
    """Copy a store's files and bring them to the disk; return sizes and digests by name."""
    target.mkdir()
    files: dict[str, tuple[int, str]] = {}
    # What RocksDB logs about itself is of no use elsewhere, nor is its lock.
    names = [p for p in sorted(source.iterdir()) if p.is_file() and not p.name.startswith(("LOG", "LOCK"))]
    with _progress(what, sum(path.stat().st_size for path in names)) as advance:
        for path in names:
            digest, size = hashlib.blake2b(digest_size=32), 0
            with path.open("rb") as reading, (target / path.name).open("wb") as writing:
                while piece := reading.read(_PIECE):
                    digest.update(piece)
                    writing.write(piece)
                    size += len(piece)
                    advance(len(piece))
                writing.flush()
                os.fsync(writing.fileno())
            files[path.name] = (size, digest.hexdigest())
    sync_folder(target)
    return files


def _write_whole(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _dump(store: RocksdbStore, target: str) -> int:
    if target == "-":
        return _dump_to(store, sys.stdout.buffer)
    path = Path(target)
    if path.exists():
        raise CommandError(f"--to {path}: it exists already")
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            count = _dump_to(store, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count


def _dump_to(store: RocksdbStore, file: BinaryIO) -> int:
    encode = msgspec.json.Encoder().encode
    about = {"version": _DUMP_VERSION, "format": STORE_FORMAT.decode(), "mq9_broker": __version__}
    file.write(encode({"kind": "dump", **about}) + b"\n")
    count = 0
    with _progress("records written") as advance:
        for count, record in enumerate(_records(store), 1):  # noqa: B007  # the last one is needed
            file.write(encode(record) + b"\n")
            advance(1)
    file.write(encode({"kind": "end", "records": count}) + b"\n")
    return count


# restore


def restore(source: str, data: Path) -> None:
    """Make a data folder of a backup or a dump."""
    backed_up = Path(source)
    is_folder = source != "-" and backed_up.is_dir()
    manifest = _read_manifest(backed_up) if is_folder else {}
    _make_empty(data, "--data")
    with _partial(data) as partial:
        if is_folder:
            files = _copy(backed_up / "store", partial, "restored")
            damaged = next((name for name, expected in manifest.items() if files.get(name) != expected), None)
            if damaged is not None:
                raise CommandError(f"--from {source}: the file store/{damaged} is missing or damaged")
        else:
            _load(source, partial)
        with _reading(partial) as store:
            problems = list(check_store(store))
        if problems:
            raise CommandError(
                f"--from {source}: what it holds is inconsistent: {problems[0]} ({len(problems)} problems)"
            )
    _say(f"restored to {data}")


@contextlib.contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """Where a store is made; it becomes the data folder's when all went well, else nothing is left of it."""
    partial = folder / "store.partial"
    try:
        yield partial
        partial.rename(folder / "store")
        DataFolder(folder).write_format()
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _read_manifest(folder: Path) -> dict[str, tuple[int, str]]:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
        DataFolder(folder).check()
        return {name: (size, digest) for name, (size, digest) in manifest["files"].items()}
    except FileNotFoundError:
        raise CommandError(f"--from {folder}: no complete backup: it has no file {_MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"--from {folder}: cannot read {_MANIFEST}: {error}") from None
    except FolderError as error:
        raise CommandError(f"--from {folder}: {error}") from None


def _load(source: str, path: Path) -> None:
    """Fill a new store from a dump."""
    name = "standard input" if source == "-" else source
    with contextlib.ExitStack() as stack:
        try:
            file = sys.stdin.buffer if source == "-" else stack.enter_context(Path(source).open("rb"))
        except OSError as error:
            raise CommandError(f"--from {source}: {error.strerror}") from None
        store = RocksdbStore(path)
        stack.callback(store.close)
        with _progress("records restored") as advance:
            pairs: list[tuple[bytes, bytes | None]] = []
            for pair in _read_dump(file, name):
                pairs.append(pair)
                advance(1)
                if len(pairs) >= _BATCH:
                    store.write(Batch((), pairs))
                    pairs = []
            store.write(Batch((), pairs))
            store.sync()


def _read_dump(file: Iterable[bytes], name: str) -> Iterator[tuple[bytes, bytes]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    number = 0
    for number, line in enumerate(file, 1):
        try:
            record = decode(line)
            if number == 1:
                _check_head(record)
            elif record.get("kind") == "end":
                if record.get("records") != number - 2:
                    raise RecordError(f"{number - 2} records, and there were {record.get('records')}")
                return
            else:
                yield encode_record(record)
        except (RecordError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CommandError(f"{name}:{number}: {error}") from None
    raise CommandError(f"{name}:{number + 1}: the end is missing")


def _check_head(head: Record) -> None:
    if head.get("kind") != "dump":
        raise RecordError("not a dump of mq9-broker")
    if head.get("version") != _DUMP_VERSION or head.get("format") != STORE_FORMAT.decode():
        raise RecordError(
            f"a dump of version {head.get('version')!r}, format {head.get('format')!r}; this version of "
            f"mq9-broker reads version {_DUMP_VERSION}, format {STORE_FORMAT.decode()!r}"
        )


# check


def check(data: Path) -> int:
    """Verify the invariants of a store; return how many problems there are."""
    with _snapshot(data) as path, _reading(path) as store:
        problems = list(check_store(store))
    for problem in problems[:_PROBLEMS_SHOWN]:
        _out(problem)
    if len(problems) > _PROBLEMS_SHOWN:
        _out(f"... and {len(problems) - _PROBLEMS_SHOWN} more")
    _say(f"{len(problems)} problems" if problems else "no problems")
    return len(problems)


# inspect


def inspect(data: Path, as_json: bool, with_addresses: bool, top: int) -> None:
    """Print what a store holds."""
    with _snapshot(data) as path, _reading(path) as store:
        summary = _summary(store, with_addresses, top) | {"bytes_on_disk": store.size()}
    if as_json:
        _out(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    for name, value in summary.items():
        if name != "largest_mailboxes":
            shown = f"{value:,}" if isinstance(value, int) and name != "time_ms" else value
            _out(f"{name.replace('_', ' '):16} {shown}")
    for mailbox in summary["largest_mailboxes"]:
        _out("  " + ", ".join(f"{name} {value}" for name, value in mailbox.items()))


def _summary(store: RocksdbStore, with_addresses: bool, top: int) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    summary: dict[str, Any] = {"format": "", "time_ms": 0}
    mailboxes: dict[int, dict[str, Any]] = {}
    for record in _records(store):
        kind = record["kind"]
        counts[kind] += 1
        if kind == "format":
            summary["format"] = record["version"]
        elif kind == "time":
            summary["time_ms"] = record["ms"]
        elif kind == "mailbox":
            address = record["mail_address"]
            digest = hashlib.sha256(address.encode()).hexdigest()[:16]
            mailboxes[record["incarnation"]] = (
                {"mail_address": address} if with_addresses else {"sha256": digest}
            )
        elif kind == "mailbox_state":
            mailboxes[record["incarnation"]] |= {
                "messages": sum(record["messages"]),
                "bytes": record["bytes"],
                "delayed": record["delayed"],
                "groups": record["groups"],
            }
    named = [mailbox for mailbox in mailboxes.values() if "messages" in mailbox]
    for field in ("messages", "bytes", "delayed", "groups"):
        summary[field] = sum(mailbox[field] for mailbox in named)
    named.sort(key=lambda mailbox: -mailbox["bytes"])
    return summary | {
        "mailboxes": counts["mailbox"],
        "segments": counts["segment"],
        "leases": counts["lease"],
        "dedup_ids": counts["dedup"],
        "agents": counts["agent"],
        "dead_letters": counts["outbox"],
        "largest_mailboxes": named[:top],
    }


# What a person sees.


def _out(text: str) -> None:
    sys.stdout.write(text + "\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


@contextlib.contextmanager
def _progress(what: str, total: int = 0) -> Iterator[Callable[[int], None]]:
    """Count on a terminal's line, and nowhere else."""
    done, shown = 0, 0.0

    def advance(more: int) -> None:
        nonlocal done, shown
        done += more
        if sys.stderr.isatty() and time.monotonic() - shown > 0.2:
            shown = time.monotonic()
            sys.stderr.write(f"\r{done:,}{f' of {total:,}' if total else ''} {what}")
            sys.stderr.flush()

    try:
        yield advance
    finally:
        if shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
