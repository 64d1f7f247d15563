"""An agent of `make demo`: counts the words of texts from a mailbox that it shares with its colleagues.

What it tells, what it reads and what it sends is the same in every language; see demo/README.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import Counter
from typing import Any

import mq9

URL = os.environ["MQ9_URL"]
NAME = os.environ["MQ9_NAME"]
MAILBOX = os.environ["MQ9_MAILBOX"]
THINK_MS = int(os.environ.get("MQ9_THINK_MS", "0"))
CARD = {
    "description": "counts the words of a text, in Python",
    "skills": [{"id": "count-words"}],
    "language": "Python",
}


def tell(event: str) -> None:
    """Writes one event."""
    print(event, flush=True)


def count(text: str, n: int) -> dict[str, Any]:
    """The number of words, and the n most frequent ones of four letters or more."""
    frequent = Counter(word.lower() for word in re.findall(r"[A-Za-z]{4,}", text))
    top = sorted(frequent.items(), key=lambda item: (-item[1], item[0]))[:n]
    return {"words": len(re.findall(r"[^ \t\r\n\v\f]+", text)), "top": [list(item) for item in top]}


async def serve(client: mq9.Client) -> None:
    """Takes tasks until it is cancelled."""

    async def handle(message: mq9.Message) -> None:
        task = message.json()
        tell(f"began {task['document']} priority={message.priority} delivery={message.delivery_count}")
        await asyncio.sleep(THINK_MS / 1000)
        result = count(task["text"], task["n"])
        await client.send(
            message.reply_to or "",
            {"agent": NAME, "language": "Python", "document": task["document"], **result},
            priority=message.priority,
            correlation_id=message.correlation_id,
        )
        tell(f"did {task['document']} words={result['words']}")

    await client.consume(
        MAILBOX, "workers", handle, deliver="earliest", num_msgs=1, lease_ms=2000, max_wait_ms=1000
    )


async def main() -> None:
    """Registers, waits for the word `work`, works until SIGTERM."""
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    assert running is not None
    loop.add_signal_handler(signal.SIGTERM, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        async with await mq9.connect(URL, name=NAME) as client:
            with contextlib.suppress(mq9.MailboxExistsError):  # a colleague was first
                await client.mailbox_create(MAILBOX, ttl=600)
            async with client.agent_keep_alive(NAME, mailbox=MAILBOX, card=CARD):
                tell("ready")
                reader = asyncio.StreamReader()
                await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
                if (await reader.readline()).strip() == b"work":
                    await serve(client)


if __name__ == "__main__":
    asyncio.run(main())
