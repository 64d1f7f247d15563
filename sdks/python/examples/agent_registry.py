"""An agent says what it can do; another finds it by that. `python agent_registry.py [URL]`."""

import asyncio
import sys

import mq9

CARD = {
    "description": "Counts the words of a text.",
    "skills": [
        {"id": "count-words", "tags": ["text", "statistics"], "examples": ["How long is this article?"]}
    ],
}


async def main(url: str = "nats://127.0.0.1:4222") -> None:
    """Registers an agent, finds it by a word of its card, and sends it a message."""
    async with await mq9.connect(url) as worker, await mq9.connect(url) as client:
        inbox = await worker.mailbox_create(ttl=3600)
        async with worker.agent_keep_alive("word-counter", mailbox=inbox, card=CARD):
            found = await client.agent_discover("statistics")
            for agent in found.agents:
                print(f"found {agent['name']}: {agent['description']}")
            await client.send(found.agents[0]["mailbox"], "to be or not to be")
            result = await worker.fetch(inbox, deliver="earliest")
            print(f"{len(result.messages[0].text().split())} words")
        print(f"{len((await client.agent_discover('statistics')).agents)} agents left")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
