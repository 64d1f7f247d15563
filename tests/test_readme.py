"""Every command and snippet of README.md does what README.md says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"

README = (ROOT / "README.md").read_text(encoding="utf-8")
DEFAULT_URL = "nats://127.0.0.1:4222"


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(command: list[str], url: str) -> str:
    """Runs a command from the repository's root against this broker; its standard output."""
    environment = {**os.environ, "MQ9_URL": url}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python_quickstart(broker_url: str) -> None:
    [snippet] = blocks("python")
    assert DEFAULT_URL in snippet
    out = run([sys.executable, "-c", snippet.replace(DEFAULT_URL, broker_url)], broker_url)
    first, second = out.splitlines()
    assert first == "critical the building is on fire"
    assert second.startswith("normal ") and "Guten Morgen" in second


@pytest.mark.parametrize(
    ("language", "sdk"),
    [("ts", "js"), ("go", "go"), ("rust", "rust"), ("java", "java"), ("csharp", "csharp")],
)
def test_the_quickstart_of_another_language_is_the_one_that_its_sdk_runs(language: str, sdk: str) -> None:
    """`make examples` of each SDK runs the first snippet of its README."""
    [snippet] = blocks(language)
    assert snippet == blocks(language, (ROOT / "sdks" / sdk / "README.md").read_text("utf-8"))[0]


def test_shell_commands(broker_url: str) -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    outputs = [run(shlex.split(line), broker_url) for line in commands if line.startswith(".venv/bin/mq9 ")]
    assert len(outputs) == 3
    assert "support.inbox" in outputs[0]
    assert "printer on fire" in outputs[2] and "urgent" in outputs[2]


def test_every_other_command_is_known() -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    others = [line for line in commands if not line.startswith(".venv/bin/mq9 ")]
    assert sorted(others) == [".venv/bin/mq9-broker serve", "make demo", "make test"]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets
    shown = subprocess.run(
        [BIN / "mq9-broker", "serve", "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "127.0.0.1:4222" in shown and "rocksdb" in shown


def test_links_lead_somewhere() -> None:
    pages = [
        path
        for path in ROOT.rglob("*.md")
        if not any(
            part.startswith(".") or part in {"build", "reports", "node_modules"}
            for part in path.relative_to(ROOT).parts
        )
    ]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_contributing_names_real_stages() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = subprocess.run(
        [sys.executable, "tools/suite.py", "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    names = {line.split()[0] for line in listed.splitlines()}
    [only] = re.findall(r'ONLY="([^"]+)"', text)
    for glob in only.split():
        assert any(Path(name).match(glob) for name in names), glob
