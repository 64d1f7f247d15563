import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test here runs on both event loops: uvloop is not there on every system."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
