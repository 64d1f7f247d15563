"""A worker of the demo: registers a real agent card, takes tasks from its mailbox, sends the results back."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from pathlib import Path

import mq9
from events import tell, wait_for
from work import WORK

LEASE_MS = 1500


async def main() -> None:
    """Runs one worker until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the broker")
    parser.add_argument("--card", required=True, choices=sorted(WORK), help="the agent card to take on")
    parser.add_argument("--process", required=True, help="this process's name in the timeline")
    parser.add_argument(
        "--think", type=float, default=0.0, help="seconds that a task takes, so that people can follow"
    )
    options = parser.parse_args()
    lines = (Path(__file__).parent / "cards.jsonl").read_text(encoding="utf-8").splitlines()
    card = next(card for card in map(json.loads, lines) if card["name"] == options.card)
    mailbox = f"{options.card.replace('-', '.')}.inbox"

    async with await mq9.connect(options.url, name=options.process) as client:
        with contextlib.suppress(mq9.MailboxExistsError):  # a colleague of the same group was first
            await client.mailbox_create(mailbox, desc=card["title"])
        # A group starts where its first FETCH says: with what is already in the mailbox.
        await client.fetch(mailbox, group_name="workers", deliver="earliest", num_msgs=1, max_wait_ms=0)
        async with client.agent_keep_alive(card["name"], mailbox=mailbox, card=card):
            tell("ready", f"registered as {card['title']!r}, mailbox {mailbox}, and went away")
            await wait_for("work")
            async for message in client.consume(mailbox, "workers", num_msgs=1, lease_ms=LEASE_MS):
                task = message.json()
                again = f", delivery {message.delivery_count}" if (message.delivery_count or 1) > 1 else ""
                facts = {
                    "document": task["document"],
                    "priority": message.priority,
                    "delivery": message.delivery_count,
                }
                tell("start", f"{message.priority:8} {task['document']}{again}", **facts)
                result = WORK[options.card](task["text"])
                await asyncio.sleep(options.think)
                await client.send(
                    message.reply_to,
                    {
                        "document": task["document"],
                        "card": options.card,
                        "by": options.process,
                        "result": result,
                    },
                    correlation_id=message.correlation_id,
                )
                await message.ack()


if __name__ == "__main__":
    asyncio.run(main())
