"""A broker that starts again is where its clients look for it."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from mq9_conformance.brokers import ReferenceBroker


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: elsewhere a port cannot be kept for somebody")
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_nobody_takes_the_port_of_a_broker_that_starts_again(end: str) -> None:
    broker = ReferenceBroker(("127.0.0.1", 0))
    try:
        await broker.start()
        address = broker.address()
        await (broker.stop() if end == "stop" else broker.kill())
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        await broker.start()
        assert broker.address() == address
        _, writer = await asyncio.open_connection(*address)
        writer.close()
    finally:
        await broker.kill()
        broker.remove_data()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(address)
        other.listen()
