"""The broker's deterministic engine; README.md in this folder describes its storage format."""

from mq9_broker.engine.engine import Agent, Applied, Engine, FetchRead, Result
from mq9_broker.engine.limits import EngineLimits

__all__ = ["Agent", "Applied", "Engine", "EngineLimits", "FetchRead", "Result"]
