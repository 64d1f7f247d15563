"""The smallest conversation: a mailbox, a message, its receiver. `python quickstart.py [URL]`."""

import asyncio
import sys

import mq9


async def main(url: str = "nats://127.0.0.1:4222") -> None:
    """Sends a message and receives it."""
    async with await mq9.connect(url) as client:
        address = await client.mailbox_create(ttl=3600)
        await client.send(address, {"task": "greet", "who": "world"}, priority="urgent")

        result = await client.fetch(address, group_name="workers", deliver="earliest", lease_ms=30_000)
        for message in result.messages:
            print(f"message {message.msg_id} ({message.priority}): {message.json()}")
            await client.ack(address, "workers", message.msg_id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
