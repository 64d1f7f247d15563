import sys
from pathlib import Path

import pytest

from mq9_conformance.adapter import AdapterConfig
from mq9_conformance.runner import RunOptions, run
from mq9_conformance.scenario import load_file
from mq9_conformance.spec import find_spec, load_spec

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def spec():
    return load_spec(find_spec(str(HERE.parents[1] / "spec")))


@pytest.fixture
def scenarios(tmp_path):
    def load(text):
        path = tmp_path / "some.yaml"
        path.write_text(text, "utf-8")
        return load_file(path)

    return load


@pytest.fixture
def fake():
    def config(wrong="", name="fake", vectors=None):
        command = [sys.executable, str(HERE / "fake_adapter.py")]
        return AdapterConfig(name, command, HERE, vectors=vectors, environment={"FAKE": wrong})

    return config


@pytest.fixture
def play(spec, scenarios):
    """Plays scenarios, with an adapter or raw, and gives the report."""

    async def play_text(text, *adapters, known=(), strict=False, filtered=True):
        loaded = scenarios(text)
        options = RunOptions(spec, loaded, list(adapters), list(known), raw=not adapters)
        return await run(options, loaded, filtered=filtered, strict=strict)

    return play_text
