"""The demo's coordinator: finds workers by what they do, hands out the work, checks the results."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections import Counter
from pathlib import Path

import mq9
from events import tell, wait_for
from work import count

NEED = "count the words of a text"  # what the coordinator needs, in its own words; it knows no agent by name
MAILBOX = "coordinator.results"
FEW = 12  # fewer texts than this are cut into parts, so that there is something to share out
LONGEST_PART = 150_000  # characters; in JSON still below the broker's largest payload
MOST_FREQUENT = 3  # words that each answer names


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


async def find_workers(client: mq9.Client) -> str:
    """Asks the registry who can do the work; gives the mailbox of those who can be reached."""
    found = await client.agent_discover(NEED, limit=100)
    reachable = [agent for agent in found.agents if "mailbox" in agent]
    if not reachable:
        raise SystemExit(f"nobody in the registry can {NEED!r}")
    mailbox = str(reachable[0]["mailbox"])
    names = [agent["name"] for agent in reachable if agent["mailbox"] == mailbox]
    tell(
        "found",
        f"{NEED!r} -> {len(found.agents)} agents match, {len(names)} of them have a mailbox, "
        f"the same: {', '.join(sorted(names))}",
    )
    return mailbox


async def hand_out(client: mq9.Client, mailbox: str, text_of: dict[str, str]) -> dict[str, str]:
    """Sends one task a document; gives the document by correlation id."""
    tasks: dict[str, str] = {}
    sent: Counter[str] = Counter()
    for number, (document, text) in enumerate(text_of.items()):
        # The last document is critical and the two before it are urgent: sent last, done first.
        back = len(text_of) - number
        priority = "critical" if back == 1 else "urgent" if back <= 3 else "normal"
        task = f"task-{number + 1}"
        tasks[task] = document
        sent[priority] += 1
        await client.send(
            mailbox,
            {"document": document, "text": text, "n": MOST_FREQUENT},
            priority=priority,
            reply_to=MAILBOX,
            correlation_id=task,
            dedup_id=task,
        )
    what = "1 task" if len(tasks) == 1 else f"{len(tasks)} tasks"
    lanes = ", ".join(f"{n} {priority}" for priority, n in sent.items())
    tell("handed-out", f"{what} sent to {mailbox}: {lanes}; nobody is there yet", documents=len(tasks))
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
        tasks = await hand_out(client, await find_workers(client), text_of)
        waiting = set(tasks)
        differing: list[str] = []
        done: Counter[str] = Counter()
        async for message in client.consume(MAILBOX, "coordinator", deliver="earliest"):
            answer = message.json()
            task = message.correlation_id or ""
            if task in waiting:  # a task that was taken over may be answered twice
                waiting.remove(task)
                done[answer["language"]] += 1
                document = tasks[task]
                expected = {"document": document, **count(text_of[document], MOST_FREQUENT)}
                if {key: answer.get(key) for key in expected} != expected:
                    differing.append(f"{document} by {answer['agent']}")
                top = ", ".join(f"{word} {times}" for word, times in answer["top"])
                tell(
                    "result",
                    f"{document}: {answer['words']:,} words ({top}), by {answer['agent']}"
                    f" ({len(tasks) - len(waiting)} of {len(tasks)})",
                )
            await message.ack()
            if not waiting:
                break
        verdict = "all equal a direct computation" if not differing else f"DIFFERENT: {'; '.join(differing)}"
        by = ", ".join(f"{language} {times}" for language, times in sorted(done.items()))
        tell("verdict", f"{len(tasks)} results ({by}); {verdict}", equal=not differing)
        if differing:
            raise SystemExit(1)


if __name__ == "__main__":
    asyncio.run(main())
