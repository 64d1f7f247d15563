"""The demo's coordinator: finds workers by what they do, hands out the work, checks the results."""

from __future__ import annotations

import argparse
import asyncio
import math
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
FEW = 12  # fewer texts than this are cut into parts, so that there is something to share out
LONGEST_PART = 150_000  # characters; in JSON still below the broker's largest payload
Tasks = dict[str, tuple[str, str]]


def parts(name: str, text: str, wanted: int) -> dict[str, str]:
    """Cuts a text at line ends into so many parts at most, more if they grow too long, by their names."""
    size = min(LONGEST_PART, max(1, math.ceil(len(text) / wanted)))
    pieces: list[str] = []
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), LONGEST_PART):
            chunk = line[start : start + LONGEST_PART]
            if not pieces or len(pieces[-1]) >= size or len(pieces[-1]) + len(chunk) > LONGEST_PART:
                pieces.append("")
            pieces[-1] += chunk
    if len(pieces) < 2:
        return {name: text}
    return {f"{name} ({n} of {len(pieces)})": piece for n, piece in enumerate(pieces, 1)}


async def find_worker(client: mq9.Client, need: str) -> tuple[str, str]:
    """Asks the registry who can do this; gives the best one that can be reached: name and mailbox."""
    found = await client.agent_discover(need, limit=100)
    for rank, agent in enumerate(found.agents, 1):
        if "mailbox" in agent:
            tell(
                "found",
                f"{need!r} -> {agent['title']!r} (no. {rank} of those that match; it has a mailbox)",
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
        tasks_for = "1 task" if len(documents) == 1 else f"{len(documents)} tasks"
        tell("sent", f"{tasks_for} to {name}: " + ", ".join(f"{n} {p}" for p, n in sent.items()))
    return tasks


async def main() -> None:
    """Runs the coordinator to its verdict; exit code 1 when a result differs from the direct computation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the broker")
    parser.add_argument("documents", nargs="+", type=Path, help="the texts to work on")
    options = parser.parse_args()
    text_of: dict[str, str] = {}
    for path in options.documents:
        text = path.read_text(encoding="utf-8", errors="replace")
        text_of |= parts(str(path), text, math.ceil(FEW / len(options.documents)))

    async with await mq9.connect(options.url, name="coordinator") as client:
        await client.mailbox_create(MAILBOX, desc="Results of the demo")
        await wait_for("begin")
        tasks = await hand_out(client, list(text_of), text_of)
        waiting = f"{len(tasks)} tasks wait in three mailboxes; nobody is there yet"
        tell("handed-out", waiting, documents=len(text_of))
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
