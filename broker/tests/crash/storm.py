"""Kills a broker at random moments, under load from several clients, and checks that it kept its promises.

    .venv/bin/python -m broker.tests.crash.storm --kills 1000

A generation is some kills on the same mailboxes; at its end they are drained, the history of what clients did
and saw is judged, the store is verified (`mq9-broker check`), and the mailboxes are deleted. Exit code 1 when
something is wrong; the data folder is kept then.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from .client import Client, Lost
from .history import LANES, History, Sent

PROGRAM = str(Path(sys.executable).parent / "mq9-broker")
READY_TIMEOUT = 300.0
MAILBOXES = 3
SENDERS = 4
WORKERS = 3
OUTSTANDING = 8
LEASE = 1.0
DELAY = 1
DRAIN_TIMEOUT = 120.0
# A SEND is repeated for so many seconds, as SDKs do it: after two minutes its dedup-id counts no more.
RETRIES_END = 60.0


class Broker:
    """A broker on a data folder that is killed and started again."""

    def __init__(self, data: Path, rnd: random.Random) -> None:
        self._data = data
        self._rnd = rnd
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.is_up = asyncio.Event()

    async def start(self) -> None:
        fsync = self._rnd.choice(("always", "interval", "never"))
        arguments = ["serve", "--listen", "127.0.0.1:0", "--http", "off", "--data", str(self._data)]
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, *arguments, "--fsync", fsync, "--reserve", "4MiB", "--log-level", "warning",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        if self._rnd.random() < 0.1:  # killed while it starts
            await asyncio.sleep(self._rnd.random())
            await self.kill()
            await self.start()
            return
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), READY_TIMEOUT)
        ready = re.match(rb"mq9-broker ready nats=nats://127\.0\.0\.1:(\d+) ", line)
        if not ready:
            raise RuntimeError(f"the broker does not start: {line!r}")
        self.port = int(ready[1])
        self.is_up.set()

    async def kill(self) -> None:
        self.is_up.clear()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def may_be_sent_again(sent: Sent, now: float) -> bool:
    """Whether a message that is perhaps there already would not be there twice then."""
    return sent.has_dedup_id and now < sent.sent_at + RETRIES_END


class Generation:
    """Clients at work on their own mailboxes until they are told to stop."""

    def __init__(self, broker: Broker, number: int, rnd: random.Random) -> None:
        self._broker = broker
        self._rnd = rnd
        self.history = History()
        self.mailboxes = [f"g{number}.m{place}" for place in range(MAILBOXES)]
        self._prefix = f"g{number}"
        self._stopping = False
        self.requests = 0
        self._numbers = count()

    async def create(self) -> None:
        client = await Client.connect(self._broker.port)
        for name in self.mailboxes:
            reply = await client.request("MAILBOX.CREATE", {"name": name})
            assert not reply["error"] or reply["code"] == "mailbox_exists", reply
        await client.close()

    async def run(self, kills: int) -> None:
        """Load, and that many kills."""
        tasks = [asyncio.create_task(self._send(number)) for number in range(SENDERS)]
        tasks += [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        tasks.append(asyncio.create_task(self._register()))
        try:
            for _ in range(kills):
                await asyncio.sleep(self._rnd.uniform(0.02, 0.6))
                await self._broker.kill()
                await self._broker.start()
            self._stopping = True
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self) -> Client:
        while True:
            await self._broker.is_up.wait()
            try:
                return await Client.connect(self._broker.port)
            except Lost:
                await asyncio.sleep(0.01)

    async def _send(self, sender: int) -> None:
        again: list[Sent] = []
        while not self._stopping or again:
            client = await self._connected()
            try:
                while not self._stopping or again:
                    fresh = [] if self._stopping else [self._message(sender) for _ in range(OUTSTANDING)]
                    now = time.time()  # it may have taken long to get here
                    batch, again = [*(sent for sent in again if may_be_sent_again(sent, now)), *fresh], []
                    outcomes = await asyncio.gather(
                        *(self._send_one(client, sent) for sent in batch), return_exceptions=True
                    )
                    for sent, outcome in zip(batch, outcomes, strict=True):
                        if isinstance(outcome, BaseException) and not isinstance(outcome, Lost):
                            raise outcome
                        # Without a dedup-id nobody may send it again: it may be there.
                        if isinstance(outcome, Lost) and sent.has_dedup_id:
                            again.append(sent)
                    if any(isinstance(outcome, Lost) for outcome in outcomes):
                        raise Lost
                    await asyncio.sleep(self._rnd.uniform(0, 0.01))
            except Lost:
                pass
            finally:
                await client.close()

    def _message(self, sender: int) -> Sent:
        number = next(self._numbers)
        sent = Sent(
            name=f"{self._prefix}-{sender}-{number}",
            sender=sender,
            number=number,
            mailbox=self._rnd.choice(self.mailboxes),
            lane=self._rnd.choice(LANES),
            has_dedup_id=self._rnd.random() < 0.5,
            delay=DELAY if self._rnd.random() < 0.1 else 0,
            sent_at=0.0,
        )
        self.history.sent[sent.name] = sent
        return sent

    async def _send_one(self, client: Client, sent: Sent) -> None:
        headers = {"mq9-priority": sent.lane}
        if sent.has_dedup_id:
            headers["mq9-dedup-id"] = sent.name
        if sent.delay:
            headers["mq9-delay"] = str(sent.delay)
        sent.sent_at = sent.sent_at or time.time()
        reply = await client.request(f"MSG.SEND.{sent.mailbox}", sent.name.encode(), headers)
        if reply["error"]:
            self.history.problems.append(f"SEND of {sent.name}: {reply['error']}")
            return
        self.requests += 1
        sent.replies.append(reply["msg_id"])

    async def _work(self) -> None:
        while not self._stopping:
            client = await self._connected()
            try:
                while not self._stopping:
                    await self._fetch_and_settle(client, self._rnd.choice(self.mailboxes), careless=True)
            except Lost:
                pass
            finally:
                await client.close()

    async def _fetch_and_settle(self, client: Client, mailbox: str, *, careless: bool) -> int:
        """Fetch under a lease and acknowledge; careless workers give some back, and forget some."""
        lease = LEASE * self._rnd.uniform(0.3, 1)
        config = {"num_msgs": 20, "max_wait_ms": 100, "lease_ms": int(lease * 1000)}
        asked_at = time.time()
        body = {"group_name": "g", "deliver": "earliest", "config": config}
        reply = await client.request(f"MSG.FETCH.{mailbox}", body)
        if reply["error"]:
            self.history.problems.append(f"FETCH of {mailbox}: {reply['error']}")
            return 0
        self.requests += 1
        messages = reply["messages"]
        for message in messages:
            self.history.delivered(mailbox, message, asked_at, time.time(), int(lease * 1000) / 1000)
        ids = [message["msg_id"] for message in messages]
        if careless:
            back = [msg_id for msg_id in ids if self._rnd.random() < 0.1]
            forgotten = {msg_id for msg_id in ids if self._rnd.random() < 0.05}
            if back:
                await self._give_back(client, mailbox, back, reply["lease_id"], asked_at + lease)
            ids = [msg_id for msg_id in ids if msg_id not in back and msg_id not in forgotten]
        if ids:
            await self._acknowledge(client, mailbox, ids)
        return len(messages)

    async def _give_back(
        self, client: Client, mailbox: str, ids: list[int], lease_id: str, leased_until: float
    ) -> None:
        delay = self._rnd.choice((0.0, 0.5))
        noted = [self.history.boxes[mailbox].given_back[msg_id] for msg_id in ids]
        asked_at = time.time()
        for given_back in noted:
            given_back.append((asked_at, 0.0, delay))
        body = {"group_name": "g", "msg_ids": ids, "lease_id": lease_id, "delay_ms": int(delay * 1000)}
        reply = await client.request(f"MSG.NACK.{mailbox}", body)
        assert not reply["error"], reply
        # Where the lease may have been over by then, it may have done nothing.
        if time.time() < leased_until:
            for given_back in noted:
                given_back[-1] = (asked_at, time.time(), delay)

    async def _acknowledge(self, client: Client, mailbox: str, ids: list[int]) -> None:
        box = self.history.boxes[mailbox]
        box.maybe_acknowledged.update(ids)
        reply = await client.request(f"MSG.ACK.{mailbox}", {"group_name": "g", "msg_ids": ids})
        assert not reply["error"], reply
        self.requests += 1
        for msg_id in ids:
            box.acknowledged.setdefault(msg_id, time.time())

    async def _register(self) -> None:
        for number in count():
            if self._stopping:
                return
            client = await self._connected()
            name = f"{self._prefix}-agent-{number}"
            try:
                reply = await client.request("AGENT.REGISTER", {"name": name, "mailbox": self.mailboxes[0]})
                if not reply["error"]:
                    self.history.agents.add(name)
                await asyncio.sleep(0.02)
            except Lost:
                pass
            finally:
                await client.close()

    async def finish(self) -> list[str]:
        """Drain all mailboxes, judge the history, and delete everything."""
        client = await Client.connect(self._broker.port)
        try:
            for mailbox in self.mailboxes:
                await self._drain(client, mailbox)
            contents = {mailbox: await _all_messages(client, mailbox) for mailbox in self.mailboxes}
            problems = self.history.judge(contents, await _all_agents(client))
            for mailbox in self.mailboxes:
                await client.request(f"MAILBOX.DELETE.{mailbox}")
            await client.request("AGENT.UNREGISTER", {"mailbox": self.mailboxes[0]})
            return problems
        finally:
            await client.close()

    async def _drain(self, client: Client, mailbox: str) -> None:
        deadline = time.monotonic() + DRAIN_TIMEOUT
        while time.monotonic() < deadline:
            if await self._fetch_and_settle(client, mailbox, careless=False):
                continue
            info = (await client.request(f"MAILBOX.INFO.{mailbox}"))["mailbox"]
            groups = info.get("groups", [])
            if not info["delayed"] and all(not group["pending"] + group["leased"] for group in groups):
                return
        self.history.problems.append(f"{mailbox}: not drained after {DRAIN_TIMEOUT:g} s: {info}")


async def _all_messages(client: Client, mailbox: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        body = {"from_id": found[-1]["msg_id"] + 1 if found else 0, "limit": 1000}
        messages = (await client.request(f"MSG.QUERY.{mailbox}", body))["messages"]
        if not messages:
            return found
        found += messages


async def _all_agents(client: Client) -> set[str]:
    names: set[str] = set()
    cursor = None
    while True:
        body = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        reply = await client.request("AGENT.DISCOVER", body)
        names |= {agent["name"] for agent in reply["agents"]}
        cursor = reply.get("cursor")
        if not cursor:
            return names


async def storm(data: Path, kills: int, per_generation: int, seed: int, *, show: bool = False) -> list[str]:
    """Kill a broker that many times; return what is wrong."""
    rnd = random.Random(seed)
    broker = Broker(data, rnd)
    began, done, requests = time.monotonic(), 0, 0
    problems: list[str] = []
    await broker.start()
    try:
        for number in count():
            if done >= kills or problems:
                break
            generation = Generation(broker, number, rnd)
            await generation.create()
            some = min(per_generation, kills - done)
            await generation.run(some)
            problems += await generation.finish()
            done += some
            requests += generation.requests
            await broker.kill()
            checked = await asyncio.to_thread(
                subprocess.run, [PROGRAM, "check", "--data", str(data)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if checked.returncode:
                problems += (checked.stdout or checked.stderr).splitlines()
            if show:
                sent = len(generation.history.sent)
                say(
                    f"{done:5} of {kills} kills, {time.monotonic() - began:6.0f} s, {requests:,} requests "
                    f"acknowledged; {sent:,} messages in this generation, {len(problems)} problems"
                )
            await broker.start()
    finally:
        await broker.kill()
    return problems


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=1000, help="how often the broker is killed (default: 1000)"
    )
    parser.add_argument(
        "--per-generation", type=int, default=20, help="kills before the verdict (default: 20)"
    )
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the random choices (default: the time)"
    )
    options = parser.parse_args()
    data = Path(tempfile.mkdtemp(prefix="mq9-crash-"))
    say(f"seed {options.seed}, data in {data}")
    problems = asyncio.run(
        storm(data / "data", options.kills, options.per_generation, options.seed, show=True)
    )
    for problem in problems[:50]:
        say(f"PROBLEM: {problem}")
    say(f"{len(problems)} problems" if problems else "no problems")
    if not problems:
        shutil.rmtree(data)
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
