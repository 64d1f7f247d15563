"""Ordered key-value stores under the engine."""

from mq9_broker.store.interface import Batch, Store
from mq9_broker.store.memory import MemoryStore
from mq9_broker.store.rocksdb import RocksdbStore

__all__ = ["Batch", "MemoryStore", "RocksdbStore", "Store"]
