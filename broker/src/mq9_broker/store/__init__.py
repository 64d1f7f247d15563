"""Ordered key-value stores under the engine."""

from mq9_broker.store.interface import Batch, Store

__all__ = ["Batch", "Store"]
