"""Fixtures of the SDK's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mq9._client import Client

sys.path.insert(0, str(Path(__file__).parent))

from sdk_support import STATUSES, Answer, Broker, FakeConnection


@pytest.fixture
def statuses() -> dict[str, Callable[[], Exception]]:
    """What a connection raises, by the name that the specification gives it."""
    return STATUSES


@pytest.fixture
def fake() -> Callable[..., tuple[Client, FakeConnection]]:
    """Makes a client on a scripted connection; retries do not pause."""

    def make(answer: Answer = None, **options: Any) -> tuple[Client, FakeConnection]:
        connection = FakeConnection() if answer is None else FakeConnection(answer)
        client = Client(connection, **options)
        client._pause_unit = 0.0
        return client, connection

    return make


@pytest.fixture(scope="session")
def start_broker() -> Iterator[Callable[..., Broker]]:
    """Starts brokers; all are ended when the tests are."""
    running: list[Broker] = []

    def start(*arguments: str, port: int = 0, test_clock: bool = True) -> Broker:
        broker = Broker(*arguments, port=port, test_clock=test_clock)
        running.append(broker)
        return broker

    yield start
    for broker in running:
        if broker.process.poll() is None:
            broker.stop()


@pytest.fixture(scope="session")
def broker(start_broker: Callable[..., Broker]) -> Broker:
    """One broker for all tests that neither stop nor restart it."""
    return start_broker()


@pytest.fixture
def vectors_file() -> Path:
    """The wire vectors of the specification, generated."""
    return Path(__file__).parent / "generated" / "vectors.json"
