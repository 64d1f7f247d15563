"""The runner with an adapter in plain Python and the scripted broker: no SDK, no reference broker."""

import json
import xml.etree.ElementTree as ET

import pytest

from mq9_conformance import adapter as adapter_module
from mq9_conformance.adapter import AdapterConfig, AdapterProcess
from mq9_conformance.rawnats import RawOperations
from mq9_conformance.reports import write_reports
from mq9_conformance.reports.summary import closing_line, parity
from mq9_conformance.results import CallFailed
from mq9_conformance.verdict import KnownFailure, Status

SEND = """
- scenario: fake/send
  covers: [SEND-002]
  scripted:
    - on: msg.send
      replies:
        - {json: {error: "", msg_id: 9007199254740993}}
        - {json: {error: nobody there, code: mailbox_not_found}}
  steps:
    - a.send: {mail_address: $box, payload: hello}
      expect: 9007199254740993
      wire: {subject: $mq9.AI.MSG.SEND.$box, payload: hello, headers: {}}
    - a.send: {mail_address: $box, payload: x}
      expect_error: {kind: server, code: mailbox_not_found, message: nobody there}
"""


async def test_a_scenario_passes(play, fake):
    report = await play(SEND, fake())
    assert [result.status for result in report.results] == [Status.PASSED]
    assert report.green
    assert report.columns[0].version == "0.1"
    (lines,) = report.results[0].transcript.values()
    assert [line["subject"] for line in lines] == ["$mq9.AI.MSG.SEND.$box"] * 2


async def test_a_wrong_expectation_fails_with_the_line_and_a_timeline(play, fake):
    report = await play(
        SEND.replace("code: mailbox_not_found, message", "code: mailbox_full, message"), fake()
    )
    (result,) = report.results
    assert result.status is Status.FAILED
    assert result.reason == 'error.code: expected "mailbox_full", got "mailbox_not_found"'
    assert result.line == 13
    witnesses = {line.split()[2] for line in result.timeline}
    assert {"step", "adapter", "wire"} <= witnesses
    assert not report.green


async def test_a_call_that_should_fail_and_does_not_fails(play, fake):
    text = SEND.replace("expect: 9007199254740993", "expect_error: {kind: timeout}").replace(
        "      wire: {subject", "      doc: {subject"
    )
    report = await play(text, fake())
    assert "succeeded with 9007199254740993, expected" in report.results[0].reason


@pytest.mark.parametrize(
    ("wrong", "status", "reason"),
    [
        ("dies", Status.ERROR, "out of coffee"),
        ("number", Status.ERROR, "decimal strings"),
        ("garbage", Status.ERROR, "not a line of the protocol"),
    ],
)
async def test_a_broken_adapter_is_an_error_that_no_rule_excuses(play, fake, wrong, status, reason):
    report = await play(SEND, fake(wrong), known=[KnownFailure("fake/*", "fake", "whatever")])
    (result,) = report.results
    assert result.status is status
    assert reason in result.reason


@pytest.mark.parametrize("wrong", ["silent", "ids"])
async def test_an_adapter_that_does_not_answer_is_an_error(play, fake, monkeypatch, wrong):
    monkeypatch.setattr(adapter_module, "ANSWER_TIMEOUT_S", 1.0)
    report = await play(SEND, fake(wrong))
    assert report.results[0].status is Status.ERROR
    assert "has not answered send" in report.results[0].reason


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [("chatty", "Welcome!"), ("misspelt", "an answer without ok, error and harness_error: .*okay")],
)
async def test_an_adapter_that_does_not_say_hello_is_told_what_it_said(fake, wrong, reason):
    process = AdapterProcess(fake(wrong), "python")
    with pytest.raises(adapter_module.HarnessError, match=reason):
        await process.start()
    await process.stop()


async def test_an_adapter_that_stays_after_the_end_of_its_input_is_a_problem(fake, monkeypatch):
    monkeypatch.setattr(adapter_module, "EXIT_TIMEOUT_S", 1.0)
    process = AdapterProcess(fake("stays"), "python")
    await process.start()
    assert "does not end within" in (await process.stop() or "")


async def test_an_operation_that_the_adapter_does_not_know_is_an_error(play, fake):
    text = """
- scenario: fake/query
  covers: [QUERY-001]
  scripted: [{on: "*", reply: {none: true}}]
  steps:
    - a.query: {mail_address: box}
"""
    report = await play(text, fake())
    assert report.results[0].status is Status.ERROR
    assert "no operation query" in report.results[0].reason


async def test_a_feature_that_is_missing_is_a_failure(play, fake):
    text = """
- scenario: fake/consume
  covers: [CONSUME-001]
  scripted: [{on: "*", reply: {none: true}}]
  steps:
    - a.consume: {mail_address: box, group_name: g}
      as: k
"""
    report = await play(text, fake())
    assert report.results[0].status is Status.FAILED
    assert report.results[0].reason == "the adapter of fake does not offer consume"


async def test_a_request_that_no_rule_knows_fails_the_scenario(play, fake):
    report = await play(SEND.replace("on: msg.send", "on: msg.query"), fake())
    assert report.results[0].status in {Status.FAILED, Status.ERROR}
    assert not report.green


async def test_a_known_failure_is_excused_and_an_unexpected_pass_is_red(play, fake):
    rule = KnownFailure("fake/send", "fake", "being repaired")
    failing = SEND.replace("expect: 9007199254740993", "expect: 1")
    report = await play(failing, fake(), known=[rule])
    assert report.results[0].status is Status.KNOWN
    assert report.green
    report = await play(SEND, fake(), known=[rule])
    assert report.results[0].status is Status.UNEXPECTED
    assert not report.green


async def test_a_missing_toolchain_is_not_run_with_its_reason(play):
    config = AdapterConfig("cobol", ["cobol"], None, needs=["no-such-compiler-here"])
    report = await play(SEND, config)
    assert report.columns[0].not_run == "no-such-compiler-here is not installed"
    assert "nothing ran" in report.problems
    assert "NOT RUN: cobol" in closing_line(report)


async def test_reports_are_written(play, fake, tmp_path):
    report = await play(SEND.replace("expect: 9007199254740993", "expect: 1"), fake())
    assert write_reports(report, tmp_path / "reports").keys() == {"fake/send [fake]"}
    data = json.loads((tmp_path / "reports" / "report.json").read_text())
    assert data["green"] is False
    assert data["results"][0]["reason"].startswith("result: expected 1")
    case = ET.parse(tmp_path / "reports" / "junit.xml").getroot().find(".//testcase")
    assert (case.get("classname"), case.get("name")) == ("fake.fake", "send")
    assert "expected 1" in case.find("failure").get("message")
    for name in ("report.md", "report.html"):
        text = (tmp_path / "reports" / name).read_text()
        assert "fake/send" in text and "expected 1, got 9007199254740993" in text
    saved = json.loads((tmp_path / "reports" / "failures" / "fake.send.fake.json").read_text())
    assert saved["source"]["scenario"] == "fake/send"
    assert any('"op":"send"' in line for line in saved["timeline"])


LOUD = """
- scenario: fake/send
  covers: [SEND-002]
  scripted: [{on: msg.send, reply: {json: {error: "", msg_id: 1}}}]
  steps:
    - a.send: {mail_address: $box, payload: hello}
"""


async def test_sdks_that_send_different_requests_are_told_apart(play, fake):
    report = await play(LOUD, fake(), fake(name="twin"))
    assert report.green
    report = await play(LOUD, fake(), fake("loud", name="other"), fake(name="twin"))
    (problem,) = report.problems
    assert problem.startswith("fake/send: SDKs sent different requests:\n")
    assert "--- fake, twin" in problem and "+++ other" in problem
    report = await play(
        LOUD.replace("  steps", "  lockstep: false\n  steps"), fake(), fake("loud", name="other")
    )
    assert report.green


async def test_vectors_of_an_sdks_own_tests_are_in_the_matrix(play, fake, tmp_path, spec):
    path = tmp_path / "junit.xml"
    vectors = [f"{o.name}/{v['id']}" for o in spec.operations.values() for v in o.vectors]
    cases = [f'<testcase classname="tests" name="test_vector[{name}]"/>' for name in vectors[1:]]
    cases[-1] = cases[-1].replace("/>", "><failure/></testcase>")
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    report = await play(LOUD, fake(vectors=path))
    runs = {run.operation: run for run in report.columns[0].vectors}
    assert sum(run.total for run in runs.values()) == len(vectors)
    assert sum(run.passed for run in runs.values()) == len(vectors) - 2
    assert runs[vectors[0].split("/")[0]].missing == (vectors[0].split("/")[1],)
    assert (
        parity(report)["mailbox.info"]["fake L1"].split("/")[0]
        == parity(report)["mailbox.info"]["fake L1"].split("/")[1]
    )


PAIR = """
- scenario: pair/send-and-look
  covers: [SEND-002]
  other: [b]
  scripted:
    - on: msg.send
      reply: {json: {error: "", msg_id: 1}}
  steps:
    - a.send: {mail_address: $box, payload: hello}
      expect: 1
    - b.send: {mail_address: $box, payload: hello}
      wire: {payload: hello}
"""


async def test_every_ordered_pair_of_sdks_plays_a_scenario_with_another_sdk(play, fake):
    report = await play(PAIR, fake(), fake(name="second"))
    assert [(r.scenario.name, r.column, r.status.value) for r in report.results] == [
        ("pair/send-and-look/with-fake", "fake", "passed"),
        ("pair/send-and-look/with-fake", "second", "passed"),
        ("pair/send-and-look/with-second", "fake", "passed"),
        ("pair/send-and-look/with-second", "second", "passed"),
    ]
    assert report.green


async def test_the_other_sdk_is_the_one_that_plays_its_clients(play, fake):
    report = await play(PAIR, fake(), fake("loud", name="second"))
    by_pair = {(r.column, r.scenario.other_sdk): r.status for r in report.results}
    assert by_pair["fake", "fake"] is Status.PASSED
    assert by_pair["fake", "second"] is Status.FAILED
    assert by_pair["second", "fake"] is Status.PASSED


# Each leaves an agent, and finds only its own.
REGISTERS = """
- scenario: fake/agents-{number}
  covers: [REGISTER-001]
  broker: {{agents: none}}
  steps:
    - a.agent_register: {{name: agent-{number}, card: {{description: here}}}}
    - a.agent_discover: {{}}
      expect: {{agents: [{{name: agent-{number}}}]}}
"""


@pytest.mark.parametrize("wrong", ["", "refuses", "does nothing", "tells nothing", "tells no names"])
async def test_a_scenario_that_wants_no_agents_finds_none_of_another(play, monkeypatch, wrong):
    call = RawOperations.call

    async def call_wrongly(self, method, args, options):
        if method == "agent_discover" and args.get("limit") == 100:  # the runner asks so
            if wrong == "tells nothing":
                return {}
            if wrong == "tells no names":
                return {"agents": [{}]}
        if method == "agent_unregister":
            if wrong == "refuses":
                raise CallFailed("server", "internal")
            if wrong == "does nothing":
                return None
        return await call(self, method, args, options)

    monkeypatch.setattr(RawOperations, "call", call_wrongly)
    report = await play("".join(REGISTERS.format(number=number) for number in range(6)))
    assert [result.status for result in report.results] == [Status.PASSED] * 6, report.results[0].reason
