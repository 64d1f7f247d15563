"""Shared by the tests of the repository as a whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
sys.path.insert(0, str(ROOT / "demo"))  # its programs import each other by their names


@pytest.fixture
def broker_url() -> Iterator[str]:
    """A broker of its own for one test, on a free port."""
    command = [str(BIN / "mq9-broker"), "serve", "--listen", "127.0.0.1:0", "--http", "off"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("mq9-broker ready nats="), ready
        yield ready.split("nats=")[1].split()[0]
    finally:
        process.terminate()
        assert process.wait(20) == 0
