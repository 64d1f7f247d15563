"""Runs the tests of the Rust SDK and writes what came of them as JUnit: `run_tests.py FILE`."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

FOLDER = Path(__file__).resolve().parent.parent
COMMAND = ["cargo", "test", "--locked", "-p", "mq9", "--no-fail-fast"]
HARNESS = ["--format=pretty", "--color=never"]
RUNS = [["--lib", "--tests"], ["--doc"]]
RESULT = re.compile(r"^test (?P<name>.+?)\s+\.\.\. (?P<how>ok|FAILED|ignored)")
OUTPUT = re.compile(r"^---- (?P<name>.+?)(?: stdout)? ----$")


def results(output: str) -> dict[str, tuple[str, str]]:
    """What each test came to, with what it wrote if it failed."""
    found: dict[str, tuple[str, str]] = {}
    name, lines = "", []
    for line in output.splitlines():
        if match := RESULT.match(line):
            found[match["name"]] = (match["how"], "")
        elif match := OUTPUT.match(line):
            name, lines = match["name"], []
        elif name and line == "failures:":
            name = ""
        elif name:
            lines.append(line)
            found[name] = ("FAILED", "\n".join(lines))
    return found


def write(path: Path, found: dict[str, tuple[str, str]], seconds: float) -> None:
    """Writes a JUnit file."""
    failed = sum(how == "FAILED" for how, _ in found.values())
    suite = ElementTree.Element("testsuite", name="sdk-rust", tests=str(len(found)), failures=str(failed))
    suite.set("skipped", str(sum(how == "ignored" for how, _ in found.values())))
    suite.set("time", f"{seconds:.3f}")
    for name, (how, text) in found.items():
        case = ElementTree.SubElement(suite, "testcase", classname="mq9", name=name)
        if how == "FAILED":
            ElementTree.SubElement(case, "failure", message=text.strip().split("\n")[0]).text = text
        elif how == "ignored":
            ElementTree.SubElement(case, "skipped")
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def main() -> int:
    """Runs everything; gives 1 if anything failed, or nothing ran."""
    found: dict[str, tuple[str, str]] = {}
    begin, failed = time.monotonic(), False
    for run in RUNS:
        done = subprocess.run(
            [*COMMAND, *run, "--", *HARNESS],
            cwd=FOLDER,
            text=True,
            capture_output=True,
            check=False,
        )
        here = results(done.stdout)
        found.update(here)
        if done.returncode or not here:
            failed = True
            passed = re.compile(r"^test .* ok$|^running \d+ tests?$|^$")
            print("\n".join(line for line in done.stdout.splitlines() if not passed.match(line)))
            print(done.stderr, file=sys.stderr)
    write(Path(sys.argv[1]), found, time.monotonic() - begin)
    count = sum(how == "ok" for how, _ in found.values())
    print(f"sdk-rust: {count} of {len(found)} tests passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
