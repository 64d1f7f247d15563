"""Whatever is done to a specification, the answer is mistakes or a working model, never a traceback."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mq9_codegen import load as load_module
from mq9_codegen.cli import main
from mq9_codegen.commands import read_spec
from mq9_codegen.problems import SpecError
from mq9_codegen.render import render
from mq9_codegen.target import BUILT_IN, load_target

TOY = Path(__file__).parent / "toyspec"
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    " ",
    "x",
    "{",
    "}",
    "{x}",
    "list<",
    "list<list<text>>",
    "*/",
    "\x00",
    "\ud7ff",
    "漢",
    [],
    {},
    [None],
    [[]],
    {"x": None},
    {"": 1},
    {"doc": "X."},
    {"$repeat": {"$repeat": "ab", "times": 10**6}, "times": 10**6},
    {"$nest": 10**6},
    {"$range": [0, "x"]},
    {"$x": 1},
    "a" * 100,
    "$toy.X",
    "A-001",
    "error",
    "..",
    "\\",
    "(?",
    "[",
    "1.0",
    "self",
    "class",
]
KEYS = ["x", "doc", "type", "optional", "default", "class", "A-001", "x y", ""]
TARGETS = [load_target(BUILT_IN / name) for name in ("docs", "json-schema", "asyncapi")]


def paths(data: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    result = [here] if here else []
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        result += paths(value, (*here, key))
    return result


def mutate(data: Any, rng: random.Random) -> None:
    """Changes one place: another value, another key, one place's value at another, or nothing there."""
    places = paths(data)
    *parents, last = rng.choice(places)
    holder = data
    for part in parents:
        holder = holder[part]
    match rng.randrange(5):
        case 0:
            del holder[last]
        case 1:
            other = data
            for part in rng.choice(places):
                other = other[part]
            holder[last] = json.loads(json.dumps(other))
        case 2 if isinstance(holder, dict):
            holder[rng.choice(["x", "doc", "type", "optional", "default", "class", "A-001", "x y", ""])] = (
                holder.pop(last)
            )
        case _:
            holder[last] = json.loads(json.dumps(rng.choice(ODD)))


def survives(folder: Path) -> None:
    try:
        spec = read_spec(folder, strict=True)
    except SpecError as error:
        assert error.problems
        assert all(p.file and p.message and "Traceback" not in str(p) for p in error.problems)
        return
    for target in TARGETS:
        # A model that the rules let through can be rendered, except where a target says that it can't.
        render(spec, target)


@pytest.fixture
def fast_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the JSON Schemas of the specification once, not once a mutation."""
    problems: list[Any] = []
    loaded = load_module._schemas(TOY / "schema", problems)
    assert not problems
    monkeypatch.setattr(load_module, "_schemas", lambda *_: loaded)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("fast_schemas")
@pytest.mark.parametrize("seed", range(8))
def test_changed_values_never_end_in_a_traceback(toy_copy: Path, seed: int) -> None:
    rng = random.Random(seed)
    files = sorted(
        path.relative_to(toy_copy) for path in [*toy_copy.glob("*.yaml"), *toy_copy.glob("[ov]*/*.yaml")]
    )
    for _ in range(25):
        file = toy_copy / rng.choice(files)
        content = file.read_text("utf-8")
        data = yaml.safe_load(content)
        for _ in range(rng.choice([1, 1, 2, 5])):
            mutate(data, rng)
            if not data:
                break
        file.write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False), "utf-8")
        try:
            survives(toy_copy)
        except Exception as error:
            changed = file.read_text("utf-8")
            raise AssertionError(f"{file.name} of seed {seed} ended in {error!r}:\n{changed}") from error
        finally:
            file.write_text(content, "utf-8")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("fast_schemas")
@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_never_end_in_a_traceback(toy_copy: Path, seed: int) -> None:
    rng = random.Random(1000 + seed)
    files = sorted([*toy_copy.glob("*.yaml"), *toy_copy.glob("[ov]*/*.yaml")])
    for _ in range(25):
        file = rng.choice(files)
        content = file.read_bytes()
        changed = bytearray(content)
        for _ in range(rng.choice([1, 3, 10])):
            start = rng.randrange(len(changed))
            length = rng.choice([0, 1, 1, 5, 40])
            changed[start : start + length] = rng.choice(
                [b"", b"\n", b":", b"{", b"}", b"[", b"'", b"- ", b"\t", b"\xff", b"&a", b"*a", b"9"]
            )
        file.write_bytes(bytes(changed))
        try:
            survives(toy_copy)
        except Exception as error:
            raise AssertionError(
                f"{file.name} of seed {seed} ended in {error!r}:\n{bytes(changed)!r}"
            ) from error
        finally:
            file.write_bytes(content)


def test_the_command_line_shows_mistakes_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "spec"
    shutil.copytree(TOY, folder)
    (folder / "limits.yaml").write_text("max_x: 1\n")
    assert main(["generate", "--spec", str(folder), "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "limits.yaml:1: 'max_x' is 1; expected a mapping" in captured.err
    assert captured.err.strip().endswith("mq9-codegen: 1 mistake")
    assert "Traceback" not in captured.err + captured.out
