"""Runs everything that `make test` promises and closes with one line over all of it.

Each stage is a command. Stages that write a JUnit file are counted by its cases, others count as one. One
whose tools are missing is NOT RUN, with the reason, and counts as skipped or, with --strict, as failed.
The output of a stage that fails is printed; all output is kept in reports/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from threading import Timer
from xml.etree import ElementTree

import yaml

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "reports"
BIN = ROOT / ".venv" / "bin"
# Cores to share out to stages. One more than there are: there is always one that waits for something.
CORES = (os.cpu_count() or 1) + 1


@dataclass(frozen=True)
class Stage:
    """One command of the suite.

    Attributes:
        name: What the closing table calls it.
        command: The command, its first word looked up in .venv/bin first.
        junit: Glob below reports/ of the JUnit files it writes; empty if it counts as one.
        needs: Programs without which it can't run.
        cores: How many cores it keeps busy, about: its processor time by the time it takes, rounded.
        timeout: Seconds after which it is ended and has failed.
        after: Stages that it waits for, because both build in the same folder, or because it reads what they
            have written.
        strict: Arguments that make what can't run here a failure.
        folder: Where it is run, from the root.
    """

    name: str
    command: list[str]
    junit: str = ""
    needs: list[str] = field(default_factory=list)
    cores: int = 1
    timeout: int = 900
    after: tuple[str, ...] = ()
    strict: list[str] = field(default_factory=list)
    folder: str = "."


def pytest_stage(
    name: str,
    *paths: str,
    needs: list[str] | None = None,
    timeout: int = 900,
    workers: int = 1,
    after: tuple[str, ...] = (),
) -> Stage:
    """A stage that runs pytest over paths."""
    parallel = ["-n", str(workers)] if workers > 1 else []
    command = ["pytest", "-q", *parallel, f"--junitxml={REPORTS}/{name}.xml", *paths]
    return Stage(
        name, command, junit=f"{name}.xml", cores=workers, needs=needs or [], timeout=timeout, after=after
    )


def sdk_stages(*kinds: str) -> list[Stage]:
    """Tests, linters or examples of every SDK but Python's, by its Makefile."""
    stages: list[Stage] = []
    for what in kinds:
        for makefile in sorted(ROOT.glob("sdks/*/Makefile")):
            sdk = makefile.parent.name
            if sdk == "python":
                continue
            adapter = yaml.safe_load((makefile.parent / "adapter" / "adapter.yaml").read_text("utf-8"))
            stages.append(
                Stage(
                    f"sdk-{sdk}" if what == "test" else f"{what}-{sdk}",
                    ["make", "--no-print-directory", "-C", f"sdks/{sdk}", what],
                    junit=f"sdk-{sdk}.xml" if what == "test" else "",
                    needs=[*adapter.get("needs", [])],
                    after=() if what == "test" else (f"sdk-{sdk}",),
                    timeout=1500,
                )
            )
    return stages


SDKS = sdk_stages("test", "lint", "examples")
# What builds in the folders of the SDKs, or runs what was built there, comes after them.
BUILT = tuple(stage.name for stage in SDKS)

STAGES = [
    # What much waits for first, then the longest: nothing long should be left at the end.
    # The vectors of its report are part of the report of `conformance`.
    pytest_stage("sdk-python", "sdks/python/tests"),
    *SDKS,
    Stage(
        "conformance",
        ["mq9-conformance", "run"],
        junit="conformance/junit.xml",
        timeout=1800,
        after=(*BUILT, "sdk-python"),
        strict=["--strict"],
    ),
    pytest_stage("broker", "broker/tests", timeout=1200, workers=2),
    Stage(
        "broker-compiled",
        [
            *("python", "../tools/once.py", "broker-compiled", "--tool", "python --version"),
            *("--file", "../uv.lock", "--", "python", "tests/compiled.py"),
        ],
        folder="broker",
        needs=["cc"],
        cores=2,
        after=("broker",),
    ),
    Stage(
        "mutants",
        ["mq9-conformance", "mutants"],
        timeout=1800,
        after=("conformance",),
        strict=["--strict"],
    ),
    pytest_stage("codegen", "codegen/tests", timeout=1200, after=BUILT),
    Stage(
        "sdk-python-3.10-to-3.13",
        ["python", "tools/tox_all.py", str(REPORTS)],
        junit="tox-*.xml",
        timeout=1200,
    ),
    pytest_stage("conformance-runner", "conformance/tests", after=("conformance",)),
    pytest_stage("repository", "tests", timeout=600, after=BUILT),
    Stage("demo", ["python", "demo/run.py"], timeout=180, after=("conformance",), strict=["--strict"]),
    Stage("pyright-sdk", ["pyright", "--project", "sdks/python"], needs=["node"]),
    Stage("generated-files", ["mq9-codegen", "check"]),
    Stage("spec-lint", ["mq9-codegen", "lint"]),
    Stage("spec-diff", ["mq9-codegen", "diff", "--against", "released"]),
    Stage("ruff", ["ruff", "check", "."]),
    Stage("ruff-format", ["ruff", "format", "--check", "."]),
    Stage("mypy-codegen", ["mypy", "codegen/src"]),
    Stage("mypy-broker", ["mypy", "broker/src"]),
    Stage("mypy-conformance", ["mypy", "conformance/src"]),
    Stage("mypy-sdk", ["mypy", "sdks/python/src"]),
    Stage("api-python", ["python", "tools/python_api.py", "--check"]),
    pytest_stage("bench", "bench/tests", needs=["cc"], timeout=300),
    Stage("package", ["uv", "-q", "build", "--all-packages", "--out-dir", str(REPORTS / "dist")]),
]


@dataclass
class Outcome:
    """What came of a stage."""

    stage: Stage
    passed: int
    failed: int
    skipped: int
    seconds: float
    note: str = ""
    processor_seconds: float = 0.0


def count_junit(pattern: str, started: float) -> tuple[int, int, int]:
    """Adds up the JUnit files that a stage wrote since it began."""
    passed = failed = skipped = 0
    for path in sorted(REPORTS.glob(pattern)):
        if path.stat().st_mtime < started:
            continue
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):
            if suite.find("testsuite") is not None:
                continue
            total = int(suite.get("tests", 0))
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            left_out = int(suite.get("skipped", 0))
            passed, failed, skipped = passed + total - bad - left_out, failed + bad, skipped + left_out
    return passed, failed, skipped


def run(stage: Stage, strict: bool) -> Outcome:
    """Runs one stage, its output into reports/<name>.log."""
    missing = [tool for tool in stage.needs if shutil.which(tool) is None]
    if missing:
        note = f"NOT RUN: {', '.join(missing)} not found on PATH"
        return Outcome(stage, 0, int(strict), int(not strict), 0.0, note)
    started, wall = time.time() - 1, time.monotonic()
    log = REPORTS / f"{stage.name}.log"
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "STRICT": "1" if strict else "",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*stage.command, *(stage.strict if strict else [])],
            cwd=ROOT / stage.folder,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        late = Timer(stage.timeout, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        _, status, used = os.wait4(process.pid, 0)
        late.cancel()
        process.returncode = code = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - wall
    note = "" if code == 0 else f"exit code {code}"
    if code == -signal.SIGKILL and seconds >= stage.timeout:
        note = f"ended after {stage.timeout} s"
    passed, failed, skipped = (
        count_junit(stage.junit, started) if stage.junit else (int(code == 0), int(code != 0), 0)
    )
    if code != 0 and failed == 0:
        failed = 1
    if passed + failed == 0:
        failed, note = 1, "nothing ran"
    if strict and skipped:
        failed, skipped, note = failed + skipped, 0, f"{skipped} NOT RUN"
    return Outcome(stage, passed, failed, skipped, seconds, note, used.ru_utime + used.ru_stime)


def show(outcome: Outcome) -> None:
    """Prints a line for a stage, and all of its output if it failed."""
    verdict = "FAIL" if outcome.failed else ("ok" if outcome.passed else "----")
    print(
        f"{verdict:4} {outcome.stage.name:26} {outcome.passed:5} passed {outcome.failed:4} failed "
        f"{outcome.skipped:4} skipped {outcome.seconds:7.1f} s "
        f"({outcome.processor_seconds:.0f} of a core)  {outcome.note}",
        flush=True,
    )
    log = REPORTS / f"{outcome.stage.name}.log"
    if outcome.failed and log.exists():
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(f"     | {line}" for line in lines[-200:]), flush=True)


def next_stage(waiting: list[Stage], ended: set[str], cores: int) -> Stage | None:
    """The stage to begin now, None if there is none.

    Args:
        waiting: Stages that have not begun, those to begin first in front.
        ended: Names of stages that nobody has to wait for any more.
        cores: How many cores nobody uses. The first stage that could begin is not overtaken by one that
            needs less; it would come last.
    """
    ready = next((stage for stage in waiting if ended.issuperset(stage.after)), None)
    return ready if ready is not None and ready.cores <= cores else None


def run_all(stages: list[Stage], *, strict: bool) -> list[Outcome]:
    """Runs stages, as many at once as there are cores for them, and shows what came of each."""
    outcomes: list[Outcome] = []
    waiting, free = list(stages), CORES
    ended = {name for stage in STAGES for name in (stage.name, *stage.after)} - {s.name for s in stages}
    with ThreadPoolExecutor(max_workers=CORES) as pool:
        running: dict[Future[Outcome], Stage] = {}
        while waiting or running:
            while (stage := next_stage(waiting, ended, free)) is not None:
                waiting.remove(stage)
                free -= stage.cores
                running[pool.submit(run, stage, strict)] = stage
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                free += stage.cores
                ended.add(stage.name)
                outcomes.append(future.result())
                show(outcomes[-1])
    return outcomes


def main() -> int:
    """Runs the suite; the exit code is 0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="make test", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--strict", action="store_true", help="what could not run is a failure")
    parser.add_argument(
        "--only", default="*", metavar="GLOBS", help="stages to run, by name; several with blanks between"
    )
    parser.add_argument("--list", action="store_true", help="list the stages and leave")
    options = parser.parse_args()
    stages = [stage for stage in STAGES if any(fnmatch(stage.name, glob) for glob in options.only.split())]
    if options.list:
        print("\n".join(f"{stage.name:26} {' '.join(stage.command)}" for stage in stages))
        return 0
    REPORTS.mkdir(exist_ok=True)
    started = time.monotonic()
    outcomes = run_all(stages, strict=options.strict)
    passed, failed, skipped = (
        sum(getattr(o, name) for o in outcomes) for name in ("passed", "failed", "skipped")
    )
    if not outcomes:
        print(f"no stage matches {options.only!r}; --list names them")
        failed = 1
    bad = [o.stage.name for o in outcomes if o.failed]
    print(
        f"\n{len(outcomes)} stages in {time.monotonic() - started:.0f} s"
        f" ({sum(o.processor_seconds for o in outcomes):.0f} of a core)"
        + (f"; failed: {', '.join(bad)}" if bad else "")
    )
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
