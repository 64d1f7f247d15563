"""Ordered key-value stores under the engine."""

from mq9_broker.store.folder import DataFolder, FolderError
from mq9_broker.store.interface import Batch, Store, StoreUnavailableError
from mq9_broker.store.memory import MemoryStore
from mq9_broker.store.reserve import Reserve
from mq9_broker.store.rocksdb import RocksdbStore

__all__ = [
    "Batch",
    "DataFolder",
    "FolderError",
    "MemoryStore",
    "Reserve",
    "RocksdbStore",
    "Store",
    "StoreUnavailableError",
]
