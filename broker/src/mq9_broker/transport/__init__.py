"""The broker's own NATS server side: bytes in, requests out. Of mq9 it knows the prefix `$mq9.AI.` only."""

from mq9_broker.transport.interface import REQUEST_PREFIX, ClientConnection, Handler, Reply, Request
from mq9_broker.transport.listener import Listener, ListenerOptions

__all__ = [
    "REQUEST_PREFIX",
    "ClientConnection",
    "Handler",
    "Listener",
    "ListenerOptions",
    "Reply",
    "Request",
]
