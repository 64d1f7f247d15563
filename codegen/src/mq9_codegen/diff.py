# ruff: noqa: T201 - the command talks to people.
"""What changed between two versions of the protocol: every field, classified as breaking, additive or docs.

Breaking is what makes a client or broker of the older version misbehave against the newer one; additive is
what they can ignore; docs is what only people read. What no rule knows counts as breaking.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mq9_codegen.load import Sources, load
from mq9_codegen.policy import check_policy
from mq9_codegen.problems import Path as DataPath
from mq9_codegen.problems import Problem, SpecError, shown
from mq9_codegen.source import Document

BREAKING, ADDITIVE, DOCS = "breaking", "additive", "docs"
_MISSING = object()
_DOCS = {
    "doc",
    "summary",
    "title",
    "source",
    "licence",
    "since",
    "origin",
    "checks",
    "version",
    "covers",
    "by",
}
_NAMES = {"parameters", "fields", "reply", "values", "codes", "kinds", "scalars", "enums", "objects", "sent"}
_NAMES |= {"dead_letter", "retry_classes", "body_constants", "when"}
_UPPER = {"max", "max_length", "max_bytes", "max_items"}
_LOWER = {"min", "min_length", "min_bytes", "min_items"}


@dataclass(frozen=True)
class Change:
    """One changed field: where, what, and what it means for those who use the other version."""

    kind: str
    place: str
    path: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind:<8}  {self.place}: {self.path}: {self.what}" + (
            f" ({self.why})" if self.why else ""
        )


def compare(old: Sources, new: Sources) -> list[Change]:
    """Every difference between two specifications, breaking ones first."""
    changes: list[Change] = []
    for name in sorted({*old.documents, *new.documents}):
        before, after = old.documents.get(name), new.documents.get(name)
        if before is None and after is not None:
            changes.append(Change(ADDITIVE, f"{after.file}:1", name, "new", ""))
        elif after is None and before is not None:
            changes.append(Change(BREAKING, f"{before.file}:1", name, "removed", "clients call it"))
        elif before is not None and after is not None:
            differ = _Differ(name.split("/")[0], before, after)
            changes.extend(differ.walk(before.data, after.data, ()))
    order = {BREAKING: 0, ADDITIVE: 1, DOCS: 2}
    return sorted(changes, key=lambda change: (order[change.kind], change.place, change.path))


class _Differ:
    """Compares one file of two specifications."""

    def __init__(self, file: str, before: Document, after: Document) -> None:
        self.file = file
        self.before = before
        self.after = after

    def walk(self, old: Any, new: Any, path: DataPath) -> Iterator[Change]:
        """All changes below a path."""
        old, new = _keyed(path, old), _keyed(path, new)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            for key in [*old, *(key for key in new if key not in old)]:
                yield from self.walk(old.get(key, _MISSING), new.get(key, _MISSING), (*path, key))
            if path and path[-1] in ("parameters", "fields", "reply") and self._order(old, new):
                yield self._change(DOCS, path, "another order", "", new)
        elif old != new or type(old) is not type(new):
            kind, why = self._classify(path, old, new)
            if old is _MISSING:
                what = f"added {shown(new)}"
            elif new is _MISSING:
                what = f"removed {shown(old)}"
            else:
                what = f"{shown(old)} -> {shown(new)}"
            yield self._change(kind, path, what, why, new)

    @staticmethod
    def _order(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        return [key for key in old if key in new] != [key for key in new if key in old]

    def _change(self, kind: str, path: DataPath, what: str, why: str, new: Any) -> Change:
        document = self.before if new is _MISSING else self.after
        real = tuple(part for part in path if not str(part).startswith("#"))
        return Change(
            kind,
            f"{document.file}:{document.line(real)}",
            ".".join(map(str, path)).replace(".#", "#"),
            what,
            why,
        )

    def _classify(self, path: DataPath, old: Any, new: Any) -> tuple[str, str]:
        key, parent = str(path[-1]), str(path[-2]) if len(path) > 1 else ""
        if path[0] == "vectors":
            return DOCS, "examples and checks"
        if path[0] == "requirements":
            return self._requirement(path, old, new)
        # Below these keys stand names that the protocol gives; a parameter may be called `text` or `max`.
        is_name = parent in _NAMES or (self.file == "limits" and len(path) == 1)
        if not is_name:
            if key in _DOCS or (key.startswith("#") and parent in _DOCS):
                return DOCS, ""
            if key == "deprecated":
                return ADDITIVE, ""
            if key in _UPPER | _LOWER:
                return self._bound(key, old, new)
        found = self._by_shape(path, old, new, old is _MISSING, new is _MISSING)
        return found or (BREAKING, "it is relied on" if new is _MISSING else "")

    def _by_shape(
        self, path: DataPath, old: Any, new: Any, added: bool, removed: bool
    ) -> tuple[str, str] | None:
        key, parent = str(path[-1]), str(path[-2]) if len(path) > 1 else ""
        if parent == "parameters":
            if added:
                free = new.get("optional") or "default" in new or "default_ms" in new
                return (
                    (ADDITIVE, "it may be left out") if free else (BREAKING, "older callers do not give it")
                )
            return BREAKING, "callers give it"
        if parent in ("reply", "fields") or key in ("reply",):
            return (ADDITIVE, "unknown fields are ignored") if added else (BREAKING, "it is read")
        if parent in (
            "scalars",
            "enums",
            "objects",
            "codes",
            "kinds",
            "sent",
            "dead_letter",
            "retry_classes",
        ) or (self.file == "limits" and len(path) == 1):
            return (ADDITIVE, "") if added else (BREAKING, "it is relied on")
        if parent == "values":
            return (
                (ADDITIVE, "the enum is open")
                if added and self._open(path)
                else (BREAKING, "the set of values")
            )
        if parent == "errors":
            return ADDITIVE, "codes are an open set"
        if parent == "classify":
            return (ADDITIVE, "") if added else (BREAKING, "replies are recognised by it")
        if parent == "rules":
            return (BREAKING, "a call that was fine may fail") if added else (ADDITIVE, "less is refused")
        flags = {
            "optional": (True,),
            "required": (True, _MISSING),
            "open": (True, _MISSING),
            "configurable": (True,),
        }
        if key in flags:
            return (ADDITIVE, "") if new in flags[key] else (BREAKING, "")
        if key == "value" and self.file == "limits":
            return (
                (ADDITIVE, "wider")
                if new is not _MISSING and old is not _MISSING and new > old
                else (BREAKING, "narrower")
            )
        if key in ("positional", "encoding_field", "consumed", "broker_type") and added:
            return ADDITIVE, ""
        if parent == "body_constants":
            return (
                (ADDITIVE, "brokers ignore what they do not know")
                if added
                else (BREAKING, "brokers may read it")
            )
        if key in ("default", "default_ms"):
            return BREAKING, "those who leave it out get something else"
        return None

    def _open(self, path: DataPath) -> bool:
        data = self.before.data
        for part in path[:-2]:
            data = data.get(part, {})
        return bool(data.get("open", True))

    @staticmethod
    def _bound(key: str, old: Any, new: Any) -> tuple[str, str]:
        if old is _MISSING or new is _MISSING:
            return (BREAKING, "a new bound") if old is _MISSING else (ADDITIVE, "a bound less")
        wider = new > old if key in _UPPER else new < old
        return (ADDITIVE, "wider") if wider else (BREAKING, "narrower")

    @staticmethod
    def _requirement(path: DataPath, old: Any, new: Any) -> tuple[str, str]:
        levels = {"MAY": 0, "SHOULD": 1, "MUST": 2}
        if str(path[-1]) == "level" and old in levels and new in levels:
            return (
                (ADDITIVE, "a stronger promise")
                if levels[new] > levels[old]
                else (BREAKING, "a weaker promise")
            )
        if len(path) == 2:
            return (ADDITIVE, "") if old is _MISSING else (BREAKING, "a promise less")
        return DOCS, ""


def _keyed(path: DataPath, value: Any) -> Any:
    """Lists as mappings: vectors by id, everything else by content, so that moving an item is no change."""
    if not isinstance(value, list):
        return value
    if path == ("vectors",):
        return {f"#{item['id']}": item for item in value}
    if path and path[-1] in ("check_order", "default", "positional"):
        return tuple(json.dumps(item) for item in value)
    return {f"#{item if isinstance(item, str) else json.dumps(item, sort_keys=True)}": item for item in value}


def _version(sources: Sources) -> tuple[int, int]:
    major, minor = sources.data("mq9")["version"].split(".")
    return int(major), int(minor)


def _released(folder: Path) -> Path | None:
    """The newest version below `released/`."""
    versions: list[tuple[tuple[int, ...], Path]] = []
    for path in sorted(folder.glob("*/mq9.yaml")):
        parts = path.parent.name.split(".")
        if not all(part.isdigit() for part in parts):
            raise SpecError(
                [
                    Problem(
                        str(path.parent), 0, "is not named after a version", "a folder such as released/1.0"
                    )
                ]
            )
        versions.append((tuple(map(int, parts)), path.parent))
    return max(versions)[1] if versions else None


def _read(folder: Path) -> Sources:
    problems: list[Problem] = []
    sources = load(folder, problems)
    if not problems:
        check_policy(sources, problems)
    if problems:
        raise SpecError(problems)
    return sources


def run_diff(options: argparse.Namespace, spec_folder: Path) -> int:
    """The command `diff`."""
    if options.against:
        if options.old or options.new:
            raise SpecError(
                [Problem("diff", 0, "--against takes no folders", "either OLD NEW or --against released")]
            )
        old_folder = _released(spec_folder / "released")
        if old_folder is None:
            print("nothing is released yet, so nothing can break")
            return 0
    elif options.old:
        old_folder = options.old
    else:
        raise SpecError(
            [Problem("diff", 0, "there is nothing to compare with", "OLD NEW or --against released")]
        )
    old, new = _read(old_folder), _read(options.new or spec_folder)
    changes = compare(old, new)
    for change in changes:
        print(change)
    before, after = _version(old), _version(new)
    kinds = {change.kind for change in changes}
    counts = ", ".join(
        f"{sum(c.kind == kind for c in changes)} {kind}" for kind in (BREAKING, ADDITIVE, DOCS)
    )
    print(f"{before[0]}.{before[1]} -> {after[0]}.{after[1]}: {counts}")
    if after < before:
        print("refused: the newer version has the smaller number")
        return 1
    if BREAKING in kinds and after[0] == before[0]:
        print(f"refused: a breaking change needs a new major version, at least {before[0] + 1}.0")
        return 1
    if ADDITIVE in kinds and after == before:
        print(f"refused: an additive change needs a new minor version, at least {before[0]}.{before[1] + 1}")
        return 1
    return 0
