"""Traces of a running broker: delivered to a collector, and no trouble where there is none."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .support import LIVENESS, Broker, connect, request, run


class Collector(ThreadingHTTPServer):
    """Takes spans as an OTLP collector does, once it is let."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.go_on = threading.Event()
        self.asked = threading.Event()
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"

    @property
    def told(self) -> str:
        return "".join(str(each) for _, each in self.requests)

    def names(self) -> list[str]:
        return [
            span.name
            for _, each in self.requests
            for resource in each.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.set()
        self.server.go_on.wait(LIVENESS)
        self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def collector(*, is_slow: bool = False) -> Iterator[Collector]:
    server = Collector()
    if not is_slow:
        server.go_on.set()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


async def use(broker: Broker, sends: int = 1) -> None:
    client = await connect(broker)
    await request(client, "MAILBOX.CREATE", {"name": "secret.box"})
    for _ in range(sends):
        reply = json.loads((await client.request("$mq9.AI.MSG.SEND.secret.box", b"x", timeout=10)).data)
        assert reply["error"] == ""
    await client.close()


async def end(broker: Broker) -> str:
    broker.process.terminate()
    code, _, err = await broker.wait_async()
    assert code == 0, err
    return err


async def test_a_collector_gets_the_spans() -> None:
    with collector() as taking, Broker("--trace-endpoint", taking.url, "--server-name", "first") as broker:
        await use(broker)
        await end(broker)
        assert sorted(taking.names()) == ["mailbox.create", "msg.send"]
        assert {path for path, _ in taking.requests} == {"/v1/traces"}
        resource = taking.requests[0][1].resource_spans[0].resource
        attributes = {each.key: each.value.string_value for each in resource.attributes}
        assert attributes["service.name"] == "mq9-broker"
        assert attributes["service.instance.id"] == "first"
        assert "secret" not in taking.told


async def test_the_environment_names_the_service_and_the_command_line_shows_addresses() -> None:
    env = {"OTEL_SERVICE_NAME": "letters", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=trial"}
    with collector() as taking, Broker("--trace-endpoint", taking.url, "--show-addresses", env=env) as broker:
        await use(broker)
        await end(broker)
        resource = taking.requests[0][1].resource_spans[0].resource
        attributes = {each.key: each.value.string_value for each in resource.attributes}
        assert attributes["service.name"] == "letters"
        assert attributes["deployment.environment.name"] == "trial"
        assert "secret.box" in taking.told


async def test_without_a_collector_the_broker_serves_and_ends() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1/traces"
        with Broker("--trace-endpoint", url) as broker:
            await use(broker, 3000)  # more than wait to be delivered
            err = await end(broker)
    assert "opentelemetry" not in err
    assert err.count("traces are lost") <= 1


async def test_a_collector_that_does_not_answer_holds_nothing_up() -> None:
    with collector(is_slow=True) as taking, Broker("--trace-endpoint", taking.url) as broker:
        await use(broker, 600)
        assert await asyncio.to_thread(taking.asked.wait, LIVENESS)
        await use(broker, 3000)  # all answered while the collector is not
        assert taking.requests == []
        await end(broker)
        assert taking.requests == []


def test_what_is_no_url_and_no_share_is_refused(tmp_path: Path) -> None:
    done = run("serve", "--trace-endpoint", "localhost:4318")
    assert done.returncode == 2
    assert "--trace-endpoint: expected a URL such as http://127.0.0.1:4318/v1/traces, or off" in done.stderr
    for share in ("2", "1.5", "-1", "half"):
        done = run("serve", f"--trace-ratio={share}")
        assert done.returncode == 2
        assert "--trace-ratio: expected a share from 0 to 1, such as 0.01" in done.stderr
    file = tmp_path / "broker.yaml"
    file.write_text("trace_endpoint: https://collector.example:4318/v1/traces\ntrace_ratio: 0.01\n")
    done = run("config", "check", "--config", str(file))
    assert done.stdout.splitlines() == [
        "trace_endpoint: https://collector.example:4318/v1/traces",
        "trace_ratio: 0.01",
        "the configuration is fine",
    ]


@pytest.mark.parametrize("command", [["serve"], ["config", "check"]])
def test_where_the_extra_is_not_installed_that_is_said(command: list[str], tmp_path: Path) -> None:
    package = tmp_path / "opentelemetry"
    package.mkdir()
    (package / "__init__.py").write_text("raise ModuleNotFoundError(name='opentelemetry.sdk')")
    arguments = [*command, "--trace-endpoint", "http://127.0.0.1:4318/v1/traces"]
    done = run(*arguments, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "pip install 'mq9-broker[otel]'" in done.stderr


def test_without_tracing_nothing_of_it_is_loaded() -> None:
    program = """
import sys
from mq9_broker.app import App
from mq9_broker.config import Config

App(Config(http=None))
print([name for name in sys.modules if name.startswith(("opentelemetry", "google"))])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIVENESS, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
