import asyncio
from collections import Counter

import pytest

from mq9_broker.clock import ManualClock
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.shell.shell import Shell
from mq9_broker.store import MemoryStore
from mq9_broker.transport.connection import Connection
from mq9_conformance.adapter import find_adapters
from mq9_conformance.mutants import adapters, brokers, edge
from mq9_conformance.mutants import run as mutants_run
from mq9_conformance.mutants.edge import Ask, put_together, take_apart
from mq9_conformance.scenario import load_folder
from mq9_conformance.spec import find_spec

SEND = b"$mq9.AI.MSG.SEND.a"


def test_there_are_enough_and_each_breaks_a_requirement_of_the_spec(spec):
    assert len(brokers.MUTANTS) >= 20
    assert len(adapters.MUTANTS) >= 20
    for mutants in (brokers.MUTANTS, adapters.MUTANTS):
        assert max(Counter(mutant.name for mutant in mutants).values()) == 1
        assert {mutant.requirement for mutant in mutants} <= spec.requirements.keys()
    assert {spec.requirements[mutant.requirement].by for mutant in brokers.MUTANTS} == {"broker"}
    assert {spec.requirements[mutant.requirement].by for mutant in adapters.MUTANTS} == {"sdk"}


def test_what_adapters_declare_breaks_requirements_on_an_sdk(spec):
    for config in find_adapters(find_spec().parent):
        assert len({mutant.name for mutant in config.mutants}) == len(config.mutants), config.name
        for mutant in config.mutants:
            assert spec.requirements[mutant.requirement].by == "sdk", (config.name, mutant)


def test_an_edit_that_changes_nothing_leaves_the_bytes_alone(spec):
    request = (b"$mq9.AI.MSG.ACK.a.b", b"in.1", b"NATS/1.0\r\nA:b\r\n\r\n", b'{ "msg_id":1.0 }')
    ask = take_apart(spec, None, request)
    assert (ask.operation, ask.address, ask.body) == ("msg.ack", "a.b", {"msg_id": 1.0})
    assert put_together(ask, request) == request
    ask.body = {"msg_id": 1}
    assert put_together(ask, request)[3] == b'{"msg_id": 1}'
    ask.headers = []
    assert put_together(ask, request)[2] is None


class Client:
    """A connection as the shell sees it."""

    is_closed = False

    def __init__(self):
        self.replies = []

    def send_replies(self, replies):
        self.replies += replies


async def test_an_edit_meets_requests_of_several_clients_at_once(monkeypatch):
    for owner, name in ((Shell, "handle"), (Shell, "handle_all"), (Connection, "send_replies")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # is put back after the test
    shell = Shell(Engine(MemoryStore(), EngineLimits()), ManualClock(1_700_000_000_000))
    shell.start(asyncio.get_running_loop())
    clients = [Client(), Client()]
    shell.handle(clients[0], [(b"$mq9.AI.MAILBOX.CREATE", None, None, b'{"name":"a"}')])
    shell.handle(clients[0], [(SEND, None, None, b"before")])
    edge.install_edits(brokers.Mutant("swallows", "SEND-001", request=lambda ask: False))
    assert shell.handle_all([(client, [(SEND, b"in.1", None, b"after")]) for client in clients]) == [1, 1]
    assert [client.replies for client in clients] == [[], []]


def test_an_unknown_mutant_does_not_start():
    with pytest.raises(SystemExit, match="no broker mutant 'x'"):
        brokers.install("x")
    with pytest.raises(SystemExit, match="no adapter mutant 'x'"):
        adapters.install("x")


def test_a_mutant_that_breaks_nothing_survives_and_makes_the_run_red(spec, tmp_path, monkeypatch, capsys):
    harmless = mutants_run.Subject("broker", "", "SEND-003")
    root = find_spec().parent
    monkeypatch.setattr(brokers, "MUTANTS", [brokers.Mutant("harmless-change", "SEND-003")])
    monkeypatch.setattr(adapters, "MUTANTS", [])
    monkeypatch.setattr(
        mutants_run, "Subject", lambda *_: harmless
    )  # MQ9_MUTANT stays empty: an unbroken broker
    scenarios = load_folder(root / "conformance" / "scenarios")
    code = mutants_run.run_mutants(spec, scenarios, root, tmp_path, text="", workers=1, verbose=False)
    assert code == 1
    out = capsys.readouterr().out
    assert "SURVIVES" in out
    assert "that cover SEND-003" in out
    assert "**SURVIVES**" in (tmp_path / "mutants.md").read_text()


def test_asks_know_their_headers():
    ask = Ask("msg.send", "$mq9.AI.MSG.SEND.a", None, [("MQ9-Key", "k"), ("x", "y")], b"", None, None)
    assert ask.header("mq9-key") == "k"
    ask.drop_header("mq9-key")
    assert ask.headers == [("x", "y")]


def test_the_adapter_that_is_broken_is_there():
    assert any(config.name == "python" for config in find_adapters(find_spec().parent))
