"""The broker's deterministic engine; README.md in this folder describes its storage format."""

from mq9_broker.engine.engine import Applied, Engine, FormatError, Result, check_format
from mq9_broker.engine.fetching import FetchRead
from mq9_broker.engine.limits import EngineLimits
from mq9_broker.engine.registry import Agent

__all__ = [
    "Agent",
    "Applied",
    "Engine",
    "EngineLimits",
    "FetchRead",
    "FormatError",
    "Result",
    "check_format",
]
