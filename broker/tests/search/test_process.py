"""The search process: in order, started when it is needed, started again when it ends."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mq9_broker.search.interface import Found, Outcome, Query
from mq9_broker.search.messages import Answer, Ask, Frames, Put, Settings, frame, read_from_process
from mq9_broker.search.process import SearchProcess
from mq9_broker.search.settings import SearchSettings

from .support import WORDS, Agents, eventually


class Searcher:
    """Agents, and the process that finds them."""

    def __init__(self, settings: SearchSettings, agents: Agents) -> None:
        self.agents = agents
        self.process = SearchProcess(settings, agents)

    def put(self, name: str, **fields: Any) -> None:
        self.agents[name] = json.dumps({"name": name, **fields}).encode()
        self.process.changed(name)

    def ask(self, text: str, **options: Any) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        query = Query(text=text, **{"limit": 10, "by_meaning": False, **options})
        self.process.ask(query, future.set_result)
        return future

    async def names(self, text: str, **options: Any) -> list[str]:
        outcome = await asyncio.wait_for(self.ask(text, **options), 60)
        assert isinstance(outcome, Found), outcome
        return [hit.name for hit in outcome.hits]


@contextlib.asynccontextmanager
async def searching(
    settings: SearchSettings = WORDS, agents: Agents | None = None
) -> AsyncIterator[Searcher]:
    searcher = Searcher(settings, agents if agents is not None else Agents())
    searcher.process.start()
    try:
        yield searcher
    finally:
        searcher.process.close()
        await searcher.process.wait_closed()


async def test_a_question_sees_every_change_before_it() -> None:
    async with searching() as searcher:
        assert await searcher.names("nothing") == []  # from now on it is there
        asked = []
        for number in range(300):
            searcher.put(f"n{number}", text=f"word{number}")
            asked.append(searcher.ask(f"word{number} "))
            if number >= 100:
                del searcher.agents[f"n{number - 100}"]
                searcher.process.changed(f"n{number - 100}")
        for number, future in enumerate(asked):
            outcome = await asyncio.wait_for(future, 60)
            assert isinstance(outcome, Found)
            assert f"n{number}" in [hit.name for hit in outcome.hits]
        assert await searcher.names("word0 ") == []
        assert await searcher.names("word299") == ["n299"]


async def test_what_is_registered_already_is_told_at_the_start() -> None:
    agents = Agents({f"n{n:04}": b'{"text":"word%d all"}' % n for n in range(1000)})
    async with searching(agents=agents) as searcher:
        first = searcher.ask("all")
        searcher.put("n0500", text="changed")
        outcome = await asyncio.wait_for(first, 60)
        assert isinstance(outcome, Found)
        assert len(outcome.hits) == 10
        assert outcome.rarities[0] == 1000
        assert await searcher.names("word500 ") == []
        assert await searcher.names("changed") == ["n0500"]


async def test_there_is_no_process_before_it_is_needed() -> None:
    async with searching() as searcher:
        await asyncio.sleep(0.05)
        assert searcher.process.process_id is None
        searcher.put("a", text="word")
        assert await searcher.names("word") == ["a"]
        assert searcher.process.process_id is not None


async def test_a_process_that_was_killed_is_replaced_and_asked_again() -> None:
    async with searching() as searcher:
        for number in range(20):
            searcher.put(f"n{number}", text="word")
        assert len(await searcher.names("word")) == 10
        first = searcher.process.process_id
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        waiting = searcher.ask("word")
        searcher.put("late", text="later")
        os.kill(first, signal.SIGKILL)
        outcome = await asyncio.wait_for(waiting, 60)
        assert isinstance(outcome, Found)
        assert await searcher.names("later") == ["late"]
        assert searcher.process.restarts == 1
        assert searcher.process.process_id != first


async def test_it_ends_with_its_input_and_not_by_an_interrupt() -> None:
    async with searching() as searcher:
        searcher.put("a", text="word")
        assert await searcher.names("word") == ["a"]
        process_id = searcher.process.process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGINT)
        os.kill(process_id, signal.SIGTERM)
        assert await searcher.names("word") == ["a"]
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


async def test_vectors_come_in_the_background_and_the_queue_is_counted() -> None:
    async with searching(SearchSettings()) as searcher:
        searcher.put("cars", description="repairs automobiles")
        searcher.put("cakes", description="bakes cakes and bread")
        assert (await searcher.names("mechanic for my vehicle", by_meaning=True))[0] == "cars"
        for _ in range(600):
            if searcher.process.status is not None and not searcher.process.waiting:
                break
            await asyncio.sleep(0.1)
        assert searcher.process.waiting == 0
        assert searcher.process.status is not None
        assert searcher.process.status.agents == 2
        assert (await searcher.names("谁会修车", by_meaning=True))[0] == "cars"


async def test_after_another_start_only_what_is_registered_then_is_known() -> None:
    async with searching() as searcher:
        searcher.put("a", text="word")
        searcher.put("b", text="word")
        assert await searcher.names("word") == ["a", "b"]
        del searcher.agents["a"]  # the store was opened anew, without what had not reached it
        searcher.process.start()
        assert await searcher.names("word") == ["b"]
        assert searcher.process.restarts == 0


def test_it_ends_in_the_midst_of_work_when_its_input_does() -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "mq9_broker.search.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert started.stdin is not None
    assert started.stdout is not None
    started.stdin.write(frame(Settings(WORDS, "info", "text")))
    started.stdin.write(frame(Ask(1, Query(text="first", by_meaning=False, limit=1))))
    started.stdin.flush()
    frames = Frames()
    messages: list[object] = []
    while not any(isinstance(message, Answer) for message in messages):
        messages += map(read_from_process, frames.feed(os.read(started.stdout.fileno(), 2**16)))
    # Far more than it can do by then, and behind it all a question.
    for number in range(40):
        text = " ".join(f"word{number}x{n}" for n in range(10_000))
        started.stdin.write(frame(Put(f"n{number}", json.dumps({"text": text}).encode())))
    started.stdin.write(frame(Ask(2, Query(text="last", by_meaning=False, limit=1))))
    started.stdin.close()
    rest = started.stdout.read()
    assert started.wait(60) == 0
    assert not [m for m in map(read_from_process, frames.feed(rest)) if isinstance(m, Answer)]
    started.stdout.close()


async def same(searcher: Searcher, expected: Outcome) -> bool:
    return await searcher.ask("task 7", by_meaning=True) == expected


async def test_what_was_made_is_there_after_a_kill(tmp_path: Path) -> None:
    settings = SearchSettings(cache=str(tmp_path))
    agents = Agents()
    async with searching(settings, agents) as searcher:
        for number in range(30):
            searcher.put(f"n{number:02}", description=f"does task {number} of thirty")
        await searcher.names("task 7", by_meaning=True)
        await eventually(lambda: searcher.process.status is not None and not searcher.process.waiting)
        expected = await searcher.ask("task 7", by_meaning=True)
        assert searcher.process.process_id is not None
        os.kill(searcher.process.process_id, signal.SIGKILL)
        # The fast vectors answer until the tables of the multilingual ones are loaded.
        await eventually(lambda: same(searcher, expected))
        assert searcher.process.waiting == 0
        assert searcher.process.restarts == 1
    agents["n07"] = b'{"name":"n07","description":"sings"}'
    del agents["n08"]
    async with searching(settings, agents) as searcher:
        found = await searcher.ask("sings", limit=10)
        assert isinstance(found, Found)
        assert [hit.name for hit in found.hits] == ["n07"]
        assert await searcher.names("7 ") == []
        assert await searcher.names("8 ") == []
        assert await searcher.names("9 ") == ["n09"]
