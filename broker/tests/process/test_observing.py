"""What an operator sees of a running broker: metrics, admin pages, logs, the check of a configuration."""

import asyncio
import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import nats
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .support import Broker, connect, request, run


def get(url: str, token: str = "") -> tuple[int, str]:
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics(broker: Broker) -> dict[tuple[str, str], float]:
    """Samples by name and labels."""
    status, text = get(broker.http_url + "/metrics")
    assert status == 200
    return {
        (sample.name, ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_requests_by_operation_and_result() -> None:
    with Broker() as broker:
        client = await nats.connect(broker.nats_url)
        await request(client, "MAILBOX.CREATE", {"name": "secret.box"})
        for _ in range(3):
            await client.request("$mq9.AI.MSG.SEND.secret.box", b"x", headers={"mq9-priority": "urgent"})
        await client.request("$mq9.AI.MSG.SEND.secret.box", b"x")
        await client.request("$mq9.AI.MSG.SEND.nobody", b"x")
        await request(client, "MSG.FETCH.secret.box", {"group_name": "g", "config": {"num_msgs": 0}})
        fetch = {"group_name": "g", "deliver": "earliest", "config": {"lease_ms": 60000}}
        reply = await request(client, "MSG.FETCH.secret.box", fetch)
        ids = [message["msg_id"] for message in reply["messages"]]
        nack = {"group_name": "g", "msg_ids": ids[:2], "lease_id": reply["lease_id"]}
        await request(client, "MSG.NACK.secret.box", nack)
        await client.request("$mq9.AI.NO.SUCH", b"")
        seen = metrics(broker)
        assert seen["mq9_requests_total", "operation=mailbox.create,result=ok"] == 1
        assert seen["mq9_requests_total", "operation=msg.send,result=ok"] == 4
        assert seen["mq9_requests_total", "operation=msg.send,result=mailbox_not_found"] == 1
        assert seen["mq9_requests_total", "operation=msg.fetch,result=ok"] == 1
        assert seen["mq9_requests_total", "operation=msg.fetch,result=invalid_argument"] == 1
        assert seen["mq9_requests_total", "operation=unknown,result=unsupported_operation"] == 1
        assert seen["mq9_request_seconds_count", "operation=msg.send"] == 5
        assert seen["mq9_request_seconds_bucket", "le=+Inf,operation=msg.send"] == 5
        assert seen["mq9_leased_messages_total", ""] == 4
        assert seen["mq9_returns_total", ""] >= 1
        assert seen["mq9_connections", ""] == 1
        assert seen["mq9_subscriptions", ""] == 1
        assert "secret" not in get(broker.http_url + "/metrics")[1]
        await client.close()


async def test_a_census_counts_messages_and_never_tells_addresses() -> None:
    with Broker() as broker:
        client = await nats.connect(broker.nats_url)
        for number in range(3):
            await request(client, "MAILBOX.CREATE", {"name": f"box.{number}"})
            for _ in range(number + 1):
                await client.request(f"$mq9.AI.MSG.SEND.box.{number}", b"hello")
        deadline = time.monotonic() + 30
        while metrics(broker)["mq9_messages", "priority=normal"] != 6:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        assert metrics(broker)["mq9_mailboxes", ""] == 3
        status, text = get(broker.http_url + "/admin/mailboxes")
        found = json.loads(text)
        assert (status, found["total"]) == (200, 3)
        assert [each["messages"] for each in found["largest"]] == [3, 2, 1]
        assert "box." not in text
        overview = json.loads(get(broker.http_url + "/admin/overview")[1])
        assert overview["requests"]["msg.send"]["requests"] == 6
        listed = json.loads(get(broker.http_url + "/admin/connections")[1])
        assert listed["total"] == 1 and listed["connections"][0]["address"] == "127.0.0.1"
        assert get(broker.http_url + "/")[1].startswith("<!doctype html>")
        await client.close()


async def test_addresses_are_shown_where_the_operator_asks_for_them() -> None:
    with Broker("--show-addresses") as broker:
        client = await nats.connect(broker.nats_url)
        await request(client, "MAILBOX.CREATE", {"name": "plain.sight"})
        deadline = time.monotonic() + 30
        while "plain.sight" not in get(broker.http_url + "/admin/mailboxes")[1]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        await client.close()


def test_a_token_opens_the_admin_pages() -> None:
    with Broker("--admin-token", "let me in") as broker:
        for path in ("/", "/admin/overview", "/admin/connections", "/admin/mailboxes"):
            assert get(broker.http_url + path)[0] == 401
            assert get(broker.http_url + path, "wrong")[0] == 401
            assert get(broker.http_url + path, "let me in")[0] == 200
        assert get(broker.http_url + "/?token=let%20me%20in")[0] == 200
        assert get(broker.http_url + "/metrics")[0] == 200


def test_without_a_token_only_a_port_of_this_machine_shows_the_admin_pages() -> None:
    with Broker("--http", "0.0.0.0:0") as broker:
        url = broker.http_url.replace("0.0.0.0", "127.0.0.1")
        status, text = get(url + "/admin/overview")
        assert status == 403 and "--admin-token" in text
        assert get(url + "/healthz")[0] == 200


def test_logs_as_json_lines() -> None:
    with Broker("--log-format", "json", "--log-level", "info,transport=debug") as broker:
        broker.signal(signal.SIGTERM)
        code, _, err = broker.wait()
    assert code == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert lines[0]["level"] == "info" and lines[0]["time"].endswith("Z")
    assert lines[-1]["message"] == "stopped"


async def _ask(broker: Broker, subject: str, body: object = None) -> None:
    client = await connect(broker)
    assert (await request(client, subject, body))["error"] == ""
    await client.close()


def test_a_line_for_each_request_with_its_id(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("log_level: info,requests=debug\nlog_format: json\n")
    with Broker("--config", str(file)) as broker:
        asyncio.run(_ask(broker, "MAILBOX.CREATE", {"name": "a.secret"}))
        broker.signal(signal.SIGTERM)
        _, _, err = broker.wait()
    (line,) = [line for line in map(json.loads, err.splitlines()) if line["logger"] == "mq9_broker.requests"]
    assert line["level"] == "debug" and line["operation"] == "mailbox.create" and line["result"] == "ok"
    assert line["message"].startswith(f"request {line['request_id']}: mailbox.create, ")
    assert "secret" not in err


def test_sighup_may_ask_for_a_line_for_each_request(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("log_level: info\n")
    with Broker("--config", str(file)) as broker:
        asyncio.run(_ask(broker, "MAILBOX.CREATE", {"name": "a"}))
        file.write_text("log_level: info,requests=debug\n")
        broker.signal(signal.SIGHUP)
        time.sleep(1)
        asyncio.run(_ask(broker, "MAILBOX.INFO.a"))
        broker.signal(signal.SIGTERM)
        _, _, err = broker.wait()
    assert "mailbox.info" in err and "mailbox.create" not in err


@pytest.mark.parametrize("levels", ["loud", "info,=debug", "transport=", "a b=info"])
def test_a_wrong_log_level_says_what_is_expected(levels: str) -> None:
    done = run("serve", "--log-level", levels)
    assert done.returncode == 2
    assert "--log-level: expected one of debug, info, warning, error" in done.stderr


def test_sighup_changes_the_log_level(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("log_level: info\n")
    with Broker("--config", str(file)) as broker:
        file.write_text("log_level: error\n")
        broker.signal(signal.SIGHUP)
        time.sleep(1)
        broker.signal(signal.SIGTERM)
        code, _, err = broker.wait()
    assert code == 0
    assert "stopped" not in err


def test_config_check(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("listen: 0.0.0.0:4222\nmax_payload: 2MiB\n")
    done = run("config", "check", "--config", str(file), "--admin-token", "hush")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "listen: 0.0.0.0:4222",
        "max_payload: 2MiB",
        "admin_token: (given)",
        "the configuration is fine",
    ]
    file.write_text("max_paylaod: 2MiB\n")
    done = run("config", "check", "--config", str(file))
    assert done.returncode == 2
    assert "broker.yaml:1: unknown option 'max_paylaod'; did you mean 'max_payload'?" in done.stderr
