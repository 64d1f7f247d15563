"""Asynchronous messaging for software agents: the Python client of mq9.

import mq9

async with await mq9.connect("nats://127.0.0.1:4222") as client:
    address = await client.mailbox_create()
    await client.send(address, "hello")
    result = await client.fetch(address, deliver="earliest")
"""

from mq9._base import Mq9Error, Payload
from mq9._client import Client, connect
from mq9._consume import Consumer, ConsumerStats, ErrorHook, Handler
from mq9._generated import public as _public
from mq9._generated.constants import SPEC_VERSION
from mq9._generated.public import *  # noqa: F403 - errors and models, by the specification
from mq9._keep_alive import AgentKeepAlive
from mq9._version import __version__

__all__ = [
    "SPEC_VERSION",
    "AgentKeepAlive",
    "Client",
    "Consumer",
    "ConsumerStats",
    "ErrorHook",
    "Handler",
    "Mq9Error",
    "Payload",
    "__version__",
    "connect",
]
__all__ += _public.__all__
