"""The demo's coordinator: finds workers by what they do, hands out the work, checks the results."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from pathlib import Path

import mq9
from events import tell, wait_for
from work import WORK

# What the coordinator needs, in its own words; it knows no agent by name.
NEEDS = [
    "count words and characters in a text document",
    "locate pattern matches, line and character positions",
    "generate a table of contents for markdown",
]
MAILBOX = "coordinator.results"
Tasks = dict[str, tuple[str, str]]


async def find_worker(client: mq9.Client, need: str) -> tuple[str, str]:
    """Asks the registry who can do this; gives the best one that can be reached: name and mailbox."""
    found = await client.agent_discover(need, limit=100)
    for rank, agent in enumerate(found.agents, 1):
        if "mailbox" in agent:
            tell(
                "found",
                f"{need!r} -> {agent['title']!r} ({len(found.agents)} matches, no. {rank} has a mailbox)",
            )
            return agent["name"], agent["mailbox"]
    raise SystemExit(f"nobody in the registry can {need!r}")


async def hand_out(client: mq9.Client, documents: list[str], text_of: dict[str, str]) -> Tasks:
    """Sends one task a document and skill; gives document and card by correlation id."""
    tasks: Tasks = {}
    for need in NEEDS:
        name, mailbox = await find_worker(client, need)
        sent: Counter[str] = Counter()
        for number, document in enumerate(documents):
            # The last document is critical and the two before it are urgent: sent last, done first.
            back = len(documents) - number
            priority = "critical" if back == 1 else "urgent" if back <= 3 else "normal"
            tasks[f"{name}/{document}"] = (name, document)
            sent[priority] += 1
            await client.send(
                mailbox,
                {"document": document, "text": text_of[document]},
                priority=priority,
                reply_to=MAILBOX,
                correlation_id=f"task-{len(tasks)}",
                dedup_id=f"task-{len(tasks)}",
            )
        tell("sent", f"{len(documents)} tasks to {name}: " + ", ".join(f"{n} {p}" for p, n in sent.items()))
    return tasks


async def main() -> None:
    """Runs the coordinator to its verdict; exit code 1 when a result differs from the direct computation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the broker")
    parser.add_argument("documents", nargs="+", type=Path, help="the texts to work on")
    options = parser.parse_args()
    text_of = {str(path): path.read_text(encoding="utf-8", errors="replace") for path in options.documents}

    async with await mq9.connect(options.url, name="coordinator") as client:
        await client.mailbox_create(MAILBOX, desc="Results of the demo")
        await wait_for("begin")
        tasks = await hand_out(client, list(text_of), text_of)
        tell(
            "handed-out", f"{len(tasks)} tasks wait in three mailboxes; nobody is there yet", tasks=len(tasks)
        )
        open_tasks = set(tasks)
        differing: list[str] = []
        done: Counter[str] = Counter()
        async for message in client.consume(MAILBOX, "coordinator", deliver="earliest"):
            answer = message.json()
            task = f"{answer['card']}/{answer['document']}"
            if task in open_tasks:  # a task that was taken over may be answered twice
                open_tasks.remove(task)
                done[answer["by"]] += 1
                if answer["result"] != WORK[answer["card"]](text_of[answer["document"]]):
                    differing.append(task)
                tell("result", f"{task} from {answer['by']} ({len(tasks) - len(open_tasks)} of {len(tasks)})")
            await message.ack()
            if not open_tasks:
                break
        verdict = "all equal a direct computation" if not differing else f"DIFFERENT: {', '.join(differing)}"
        tell("verdict", f"{len(tasks)} results; {verdict}", equal=not differing, done=dict(done))
        if differing:
            raise SystemExit(1)


if __name__ == "__main__":
    asyncio.run(main())
