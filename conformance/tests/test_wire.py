import pytest

from mq9_conformance.results import Failure
from mq9_conformance.values import Variables
from mq9_conformance.wire import WireLog, WireRecord, check_count, check_step, find_sequence, transcript


def record(operation="msg.send", payload=b"{}", headers=(), subject="$mq9.AI.X", reply=None, gap=0.0):
    return WireRecord("a", 1, operation, subject, list(headers), payload, 0.0, gap, reply)


def test_exact_json_allows_no_other_key_at_any_depth():
    variables = Variables("s.")
    sent = [record(payload=b'{"config": {"num_msgs": 1, "max_wait_ms": 5}, "group_name": "g"}')]
    check_step(
        {"json": {"group_name": "g", "config": {"num_msgs": 1, "max_wait_ms": "$integer"}}}, sent, variables
    )
    with pytest.raises(Failure, match=r"json\.config\.max_wait_ms: not expected"):
        check_step({"json": {"group_name": "g", "config": {"num_msgs": 1}}}, sent, variables)


def test_headers_are_exact_and_can_be_forbidden():
    sent = [record(headers=[("mq9-key", "k"), ("x", "y")])]
    check_step({"headers": {"mq9-key": "k", "x": "y"}}, sent, Variables("s."))
    with pytest.raises(Failure, match="not expected"):
        check_step({"headers": {"mq9-key": "k"}}, sent, Variables("s."))
    with pytest.raises(Failure, match="header mq9-key was sent"):
        check_step({"forbid_headers": ["mq9-*"]}, sent, Variables("s."))


def test_the_number_of_requests_counts():
    with pytest.raises(Failure, match="expected 0 requests, got 1"):
        check_step("nothing", [record()], Variables("s."))
    with pytest.raises(Failure, match="expected 3 requests, got 2"):
        check_step({"operation": "msg.send", "requests": 3}, [record()] * 2, Variables("s."))
    check_step({"operation": "msg.send", "requests": 2}, [record()] * 2, Variables("s."))


def test_what_is_sent_can_bind():
    variables = Variables("s.")
    sent = [record(headers=[("mq9-dedup-id", "x")]), record(headers=[("mq9-dedup-id", "y")])]
    with pytest.raises(Failure):
        check_step([{"headers": {"mq9-dedup-id": "$id"}}] * 2, sent, variables)


def test_a_sequence_is_found_with_others_between_and_only_in_order():
    sent = [record("a"), record("b"), record("c")]
    variables = Variables("s.")
    assert find_sequence([{"operation": "a"}, {"operation": "c"}], sent, variables)[1] == []
    assert find_sequence([{"operation": "c"}, {"operation": "a"}], sent, variables)[1] == [{"operation": "a"}]


def test_counts():
    sent = [record("msg.ack"), record("msg.ack")]
    assert check_count({"msg.ack": 2, "msg.nack": 0}, sent, Variables("s.")) == []
    assert check_count({"msg.ack": 1}, sent, Variables("s."))


def test_transcripts_of_two_runs_are_equal_where_behaviour_is():
    def run(stem, lease, dedup, empties):
        variables = Variables(stem)
        box = variables.get("box")
        log = WireLog("a")
        log.add(record("msg.send", b"hi", [("mq9-dedup-id", dedup), ("A", "b")], f"$mq9.AI.MSG.SEND.{box}"))
        for _ in range(empties):
            log.add(record("msg.fetch", b'{"group_name": "g"}', reply=b'{"error": "", "messages": []}'))
        body = f'{{"lease_id": "{lease}", "mail_address": "{box}"}}'.encode()
        log.add(record("msg.nack", body))
        return transcript([log], variables)

    first, second = run("s1.", "L1", "0" * 32, 2), run("s2.", "L9", "f" * 32, 5)
    assert first == second
    assert first["a"][0]["subject"] == "$mq9.AI.MSG.SEND.$box"
    assert first["a"][0]["headers"] == [["A", "b"], ["mq9-dedup-id", "$id1"]]


def test_transcripts_show_what_differs():
    def run(payload):
        log = WireLog("a")
        log.add(record("msg.ack", payload))
        return transcript([log], Variables("s."))

    assert run(b'{"a": 1}') == run(b'{ "a":1 }')
    assert run(b'{"a": 1}') != run(b'{"a": "1"}')


def test_requests_side_by_side_are_a_set_and_others_a_sequence():
    def run(*names, answered):
        log = WireLog("a")
        for name in names:
            log.add(record("msg.ack", subject=name, reply=b"{}" if answered else None))
        return transcript([log], Variables("s."))

    assert run("x", "y", answered=False) == run("y", "x", answered=False)
    assert run("x", "y", answered=True) != run("y", "x", answered=True)


def test_ids_of_requests_side_by_side_are_numbered_alike():
    def run(*ids):
        log = WireLog("a")
        for subject, dedup_id in ids:
            log.add(record("msg.send", headers=[("mq9-dedup-id", dedup_id)], subject=subject))
        return transcript([log], Variables("s."))

    assert run(("x", "0" * 32), ("y", "1" * 32)) == run(("y", "a" * 32), ("x", "b" * 32))


def test_moments_and_made_addresses_are_the_same_in_every_run():
    def run(now, address):
        variables = Variables("s.")
        variables.bind("t", now)
        variables.bind("address", address)
        log = WireLog("a")
        body = f'{{"from_time": {now + 5}, "ids": [7, true]}}'.encode()
        log.add(record("msg.query", body, subject=f"$mq9.AI.MSG.QUERY.{address}"))
        return transcript([log], variables)

    first = run(1_764_000_000, "0" * 32)
    assert first == run(1_764_555_555, "f" * 32)
    assert first["a"][0] == {
        "subject": "$mq9.AI.MSG.QUERY.$address",
        "json": '{"from_time":"$t+5","ids":[7,true]}',
    }


def test_what_ends_a_scenario_is_not_compared():
    log = WireLog("a")
    log.add(record("msg.ack"))
    log.end = 1
    log.add(record("msg.nack"))
    assert len(transcript([log], Variables("s."))["a"]) == 1


def test_a_last_fetch_that_brought_nothing_is_not_compared():
    def run(*replies):
        log = WireLog("a")
        log.add(record("msg.ack", reply=b'{"error": ""}'))
        for reply in replies:
            log.add(record("msg.fetch", reply=reply))
        return transcript([log], Variables("s."))["a"]

    empty = b'{"error": "", "messages": []}'
    assert run() == run(None) == run(empty) == run(empty, None)
    assert len(run(b'{"error": "", "messages": [{}]}', empty)) == 2
