"""What is shipped besides packages: the executable, the unit, the container recipe, the dashboard."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
BIN = ROOT / ".venv" / "bin"


def need(program: str) -> None:
    """Fails under STRICT=1 if a program is missing, else shows that the test did not run."""
    if shutil.which(program) is None:
        reason = f"NOT RUN: {program} not installed"
        if os.environ.get("STRICT") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def executable() -> Path:
    """The broker as one file, built anew where something has changed."""
    out = ROOT / "build" / "tested"
    done = subprocess.run(
        [sys.executable, PACKAGING / "build_executable.py", "--out", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "mq9-broker"


@pytest.mark.timeout(400)
def test_the_executable_serves_where_no_python_is(executable: Path, tmp_path: Path) -> None:
    command = [executable, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", "data"]
    environment = {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        ["/usr/bin/env", "-i", *(f"{k}={v}" for k, v in environment.items()), *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as broker:
        assert broker.stdout is not None and broker.stderr is not None
        try:
            ready = broker.stdout.readline()
            match = re.fullmatch(
                r"mq9-broker ready nats=(nats://127\.0\.0\.1:\d+) http=(http://\S+)\n", ready
            )
            assert match, ready + broker.stderr.read()
            with urllib.request.urlopen(f"{match[2]}/readyz", timeout=5) as answer:
                assert json.load(answer) == {"status": "ready"}
            environment = {**os.environ, "MQ9_URL": match[1]}
            made = subprocess.run(
                [BIN / "mq9", "mailbox", "create", "one.file"],
                env=environment,
                capture_output=True,
                check=False,
            )
            assert made.returncode == 0, made.stderr
        finally:
            broker.send_signal(signal.SIGTERM)
            assert broker.wait(20) == 0
    assert (tmp_path / "data").is_dir()


@pytest.mark.timeout(120)
def test_the_executable_says_its_version(executable: Path) -> None:
    done = subprocess.run([executable, "version"], env={}, capture_output=True, text=True, check=True)
    assert re.match(r"mq9-broker 1\.\d+\.\d+ \(protocol 1\.0, ", done.stdout)


@pytest.mark.timeout(120)
def test_the_executable_can_trace(executable: Path) -> None:
    command = [executable, "config", "check", "--trace-endpoint", "http://127.0.0.1:4318/v1/traces"]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("compiler", ["usual", "none"])
def test_a_wheel_from_the_source_distribution(compiler: str, tmp_path: Path) -> None:
    """With a C compiler it has compiled parts and a compiled engine, without one it is for every machine."""
    (tmp_path / "bin").mkdir()
    environment = dict(os.environ)
    if compiler == "none":
        environment = {**environment, "CC": "", "PATH": str(tmp_path / "bin")}
    else:
        need("cc")
    build = [BIN / "uv", "build", "--quiet", "--out-dir", tmp_path / "dist", ROOT / "broker"]
    build += ["--python", Path(sys.executable).resolve()]
    done = subprocess.run(build, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (source,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = archive.getnames()
    assert any(name.endswith("native/module.c") for name in names)
    assert not any(name.endswith(".so") for name in names)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    compiled = {name.partition(".")[0] for name in zipfile.ZipFile(wheel).namelist() if name[-3:] == ".so"}
    if compiler == "none":
        assert not compiled
    else:
        wanted = {"mq9_broker/_native", "mq9_broker/engine/engine", "mq9_broker_engine__mypyc"}
        assert compiled >= wanted
        version = [sys.executable, "-c", "from mq9_broker.cli import main; main(['version'])"]
        environment["PYTHONPATH"] = str(tmp_path / "installed")
        zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
        done = subprocess.run(version, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout.endswith(", compiled, engine too)\n"), done.stdout + done.stderr
    assert wheel.name.endswith("-py3-none-any.whl") is (compiler == "none")


def test_the_container_recipe_is_clean() -> None:
    done = subprocess.run(
        [BIN / "hadolint", PACKAGING / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    text = (PACKAGING / "Dockerfile").read_text("utf-8")
    for line in ("USER 10001:10001", "VOLUME /data", "EXPOSE 4222 9090"):
        assert f"\n{line}\n" in text
    assert "HEALTHCHECK" in text


def test_the_systemd_unit_is_understood(tmp_path: Path) -> None:
    need("systemd-analyze")
    text = (PACKAGING / "mq9-broker.service").read_text("utf-8")
    unit = tmp_path / "mq9-broker.service"
    unit.write_text(text.replace("/usr/local/bin/mq9-broker", "/bin/true"), "utf-8")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.timeout(120)
def test_the_dashboard_asks_for_metrics_that_the_broker_has(executable: Path) -> None:
    dashboard = json.loads((PACKAGING / "grafana-dashboard.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"\b(?:mq9|process)_[a-z_]+", " ".join(expressions)))
    command = [executable, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as broker:
        assert broker.stdout is not None
        try:
            url = broker.stdout.readline().rpartition("http=")[2].strip()
            with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        finally:
            broker.send_signal(signal.SIGTERM)
            broker.wait(20)
    known = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert families - {"mq9_store_bytes"} <= known  # that one is there with a data folder only
    assert len(asked) > 15
