"""What the suite begins next, and that nothing waits for ever."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def suite_module() -> Any:
    spec = importlib.util.spec_from_file_location("suite", ROOT / "tools" / "suite.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["suite"] = module  # where its dataclasses look for their own module
    spec.loader.exec_module(module)
    return module


suite = suite_module()


def stage(name: str, *after: str, cores: int = 1) -> Any:
    return suite.Stage(name, ["true"], cores=cores, after=after)


def test_stages_begin_in_order_but_for_those_that_have_to_wait() -> None:
    waiting = [stage("a", "c"), stage("b"), stage("c")]
    assert suite.next_stage(waiting, set(), 1).name == "b"
    assert suite.next_stage(waiting, {"c"}, 1).name == "a"
    assert suite.next_stage([stage("a", "c")], set(), 3) is None
    assert suite.next_stage([], set(), 3) is None


def test_one_that_needs_much_is_not_overtaken_by_one_that_needs_less() -> None:
    waiting = [stage("a", cores=2), stage("b")]
    assert suite.next_stage(waiting, set(), 1) is None
    assert suite.next_stage(waiting, set(), 2).name == "a"


def test_all_run_also_where_only_some_were_chosen(monkeypatch: Any) -> None:
    begun: list[str] = []

    def run(stage: Any, strict: bool) -> Any:
        begun.append(stage.name)
        return suite.Outcome(stage, 1, 0, 0, 0.0)

    monkeypatch.setattr(suite, "run", run)
    monkeypatch.setattr(suite, "show", lambda outcome: None)
    chosen = [stage for stage in suite.STAGES if stage.name in {"conformance", "mutants", "demo", "ruff"}]
    assert len(suite.run_all(chosen, strict=False)) == 4
    assert begun.index("conformance") < min(begun.index("mutants"), begun.index("demo"))
    begun.clear()
    suite.run_all(suite.STAGES, strict=False)
    assert sorted(begun) == sorted(stage.name for stage in suite.STAGES)


def test_what_a_stage_waits_for_stands_before_it_and_no_stage_needs_more_cores_than_there_are() -> None:
    seen: set[str] = set()
    for item in suite.STAGES:
        assert seen.issuperset(item.after), item.name
        assert 1 <= item.cores <= 2 <= suite.CORES, item.name
        seen.add(item.name)
    assert len(seen) == len(suite.STAGES)
