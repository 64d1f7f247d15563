# ruff: noqa: T201  # a command
"""Connects public NATS clients to the broker, with every way to say who one is; see README.md."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)

from mq9_broker.auth.passwords import hash_password

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build" / "clients"
PAGE = ROOT / "docs" / "operations.md"
BROKER = Path(sys.executable).parent / "mq9-broker"
BUILD_TIMEOUT = 900
RUN_TIMEOUT = 180
NATS_COMMAND = "github.com/nats-io/natscli/nats@v0.5.1"

# Else the compiler stays behind as a server.
_NO_SERVERS = ("-p:UseSharedCompilation=false", "-nodeReuse:false")

Env = dict[str, str]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


credentials = _load(HERE.parent / "transport" / "credentials.py")


class NotRunError(Exception):
    """The tools of a client are missing; the message says which."""


@dataclass(frozen=True)
class Case:
    """One way to connect.

    Attributes:
        name: in the table.
        options: of the broker.
        right: what lets a client in.
        wrong: what does not; None where there is nothing to be wrong.
        websocket: by WebSocket.
    """

    name: str
    options: list[str]
    right: Env
    wrong: Env | None = None
    websocket: bool = False


@dataclass(frozen=True)
class Client:
    """One client library.

    Attributes:
        name: in the table and of `--only`.
        prepare: builds its program and returns the command; raises NotRunError.
        cannot: cases that it cannot do, with the reason.
        environment: variables beside those of the case.
    """

    name: str
    prepare: Callable[[], list[str]]
    cannot: dict[str, str] = field(default_factory=dict)
    environment: Env = field(default_factory=dict)


# Building.


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise NotRunError(f"`{program}` is not on the path")
    return found


def build(folder: Path, *command: str, env: Env | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise NotRunError(f"{' '.join(command[:3])} failed: {' / '.join(last)}")
    return done.stdout


def copied(language: str) -> Path:
    """Copy a program's sources to where it is built; what was built there stays."""
    folder = BUILD / language
    shutil.copytree(HERE / language, folder, dirs_exist_ok=True)
    return folder


def python() -> list[str]:
    return [sys.executable, str(HERE / "python_client.py")]


def nats_command() -> list[str]:
    program = BUILD / "bin" / "nats"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        build(BUILD, need("go"), "install", NATS_COMMAND, env={"GOBIN": str(program.parent)})
    return [str(program)]


def go() -> list[str]:
    folder = copied("go")
    build(folder, need("go"), "mod", "tidy")
    build(folder, need("go"), "build", "-o", "client", ".")
    return [str(folder / "client")]


def js() -> list[str]:
    folder = copied("js")
    build(folder, need("npm"), "install", "--no-audit", "--no-fund", "--no-package-lock")
    # Up to Node.js 21 WebSocket has to be asked for.
    version = int(build(folder, need("node"), "-p", "process.versions.node").split(".")[0])
    flags = ["--experimental-websocket"] if version < 22 else []
    return [need("node"), *flags, str(folder / "main.mjs")]


def rust() -> list[str]:
    folder = copied("rust")
    build(folder, need("cargo"), "build", "--quiet")
    return [str(folder / "target" / "debug" / "mq9-test-client")]


def java() -> list[str]:
    folder = copied("java")
    need("javac")
    file = folder / "classpath"
    if not file.exists():
        build(folder, need("mvn"), "-q", "-B", "dependency:build-classpath", f"-Dmdep.outputFile={file}")
    classpath = f"{file.read_text().strip()}{os.pathsep}{folder}"
    build(folder, "javac", "-cp", classpath, "Client.java")
    return [need("java"), "-cp", classpath, "Client"]


def csharp() -> list[str]:
    folder = copied("csharp")
    build(
        folder, need("dotnet"), "build", "-c", "Release", "-o", "out", "--nologo", "-v", "quiet", *_NO_SERVERS
    )
    return [need("dotnet"), str(folder / "out" / "client.dll")]


_NO_NKEYS = "its NKey library is not available here"
CLIENTS = [
    Client("python", python),
    Client("nats-command", nats_command),
    Client("go", go),
    Client("js", js),
    Client("rust", rust),
    Client("java", java),
    Client("csharp", csharp, {"nkey": _NO_NKEYS, "jwt": _NO_NKEYS}),
]


def nats_arguments(env: Env) -> list[str]:
    """Return what the `nats` command is called with; it knows nothing of our variables."""
    flags = {
        "MQ9_URL": "--server",
        "MQ9_TOKEN": "--user",
        "MQ9_USER": "--user",
        "MQ9_PASSWORD": "--password",
        "MQ9_NKEY": "--nkey",
        "MQ9_CREDS": "--creds",
        "MQ9_CA": "--tlsca",
        "MQ9_CERT": "--tlscert",
        "MQ9_KEY": "--tlskey",
    }
    found = [f"{flag}={env[name]}" for name, flag in flags.items() if name in env]
    if "MQ9_TLS_FIRST" in env:
        found.append("--tlsfirst")
    return ["req", "$mq9.AI.MAILBOX.CREATE", "{}", "--raw", "--timeout=10s", *found]


# The cases.


def make_cases(folder: Path) -> list[Case]:
    authority = credentials.CertificateAuthority(folder)
    server = authority.issue("server")
    client = authority.issue("client", "mq9")
    make_p12(client, folder / "client.p12")
    key, stranger = credentials.Key("user"), credentials.Key("user")
    for name, owner in (("right.nk", key), ("wrong.nk", stranger)):
        (folder / name).write_text(owner.seed)
    chain = credentials.Authority()
    right_creds = credentials.creds_file(folder / "right.creds", chain.user_jwt(key), key)
    foreign = credentials.Authority().user_jwt(key)
    wrong_creds = credentials.creds_file(folder / "wrong.creds", foreign, key)

    def config(name: str, text: str) -> list[str]:
        file = folder / f"{name}.yaml"
        file.write_text(text)
        return ["--config", str(file)]

    user = f"- user: alice\n  password: {hash_password('secret', 6)}\n"
    users = config("users", f"users:\n{user}")
    mapped = config("mapped", f"users:\n{user}- user: CN=client,O=mq9\n")
    tls = ["--tls-cert", str(server.certificate), "--tls-key", str(server.key)]
    verified = [*tls, "--tls-ca", str(authority.file)]
    ca = {"MQ9_CA": str(authority.file)}
    own = {
        **ca,
        "MQ9_CERT": str(client.certificate),
        "MQ9_KEY": str(client.key),
        "MQ9_P12": str(folder / "client.p12"),
    }
    password = {"MQ9_USER": "alice", "MQ9_PASSWORD": "secret"}
    wrong_password = {"MQ9_USER": "alice", "MQ9_PASSWORD": "wrong"}
    websocket = ["--websocket", "127.0.0.1:0"]
    return [
        Case("none", [], {}),
        Case(
            "token",
            config("token", f"token: {hash_password('t0ken', 6)}\n"),
            {"MQ9_TOKEN": "t0ken"},
            {"MQ9_TOKEN": "wrong"},
        ),
        Case("password", users, password, wrong_password),
        Case(
            "nkey",
            config("nkey", f"users:\n- nkey: {key.public}\n"),
            {"MQ9_NKEY": str(folder / "right.nk")},
            {"MQ9_NKEY": str(folder / "wrong.nk")},
        ),
        Case(
            "jwt",
            config("jwt", f"jwt:\n  operator: {chain.operator_jwt}\n  accounts: [{chain.account_jwt()}]\n"),
            {"MQ9_CREDS": str(right_creds)},
            {"MQ9_CREDS": str(wrong_creds)},
        ),
        Case("tls", [*users, *tls], {**ca, **password}, {**ca, **wrong_password}),
        Case(
            "tls-first",
            [*users, *tls, "--tls-handshake", "first"],
            {**ca, **password, "MQ9_TLS_FIRST": "1"},
        ),
        Case("tls-mutual", verified, own, ca),
        Case("tls-map", [*mapped, *verified, "--tls-map"], own, ca),
        Case("websocket", [*users, *websocket], password, wrong_password, websocket=True),
        Case(
            "websocket+tls",
            [*users, *tls, *websocket],
            {**ca, **password, "NODE_EXTRA_CA_CERTS": str(authority.file)},
            wrong_password,
            websocket=True,
        ),
    ]


def make_p12(issued: object, file: Path) -> None:
    """Write certificate and key as Java reads them."""
    certificate, key = issued.certificate, issued.key  # type: ignore[attr-defined]
    file.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"client",
            load_pem_private_key(key.read_bytes(), None),  # type: ignore[arg-type]
            x509.load_pem_x509_certificate(certificate.read_bytes()),
            None,
            BestAvailableEncryption(b"mq9mq9"),
        )
    )


# Running.


@contextmanager
def broker(case: Case) -> Iterator[str]:
    """Run a broker; yield the URL for the case."""
    process = subprocess.Popen(
        [
            str(BROKER),
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "off",
            "--auth-timeout",
            "30",
            *case.options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        pattern = r"websocket=(\S+)" if case.websocket else r"nats=(\S+)"
        found = re.search(pattern, line)
        assert found, f"the broker did not start: {line!r}"
        yield found[1]
    finally:
        process.kill()
        process.communicate()


def call(client: Client, command: list[str], url: str, env: Env) -> tuple[bool, str]:
    """Run a client's program; return whether its request was answered, and what it said."""
    env = {"MQ9_URL": url, **env}
    if client.name == "nats-command":
        command = [*command, *nats_arguments(env)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MQ9_", "NATS_"))}
    try:
        done = subprocess.run(
            command,
            env={**kept, **client.environment, **env},
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no end within {RUN_TIMEOUT} s"
    answered = done.returncode == 0 and '"error":""' in done.stdout
    return answered, " ".join((done.stdout + done.stderr).split())


def result_of(client: Client, command: list[str], case: Case) -> str:
    """Return `ok`, `-` where a client cannot, or what went wrong."""
    if case.name in client.cannot:
        return "-"
    with broker(case) as url:
        host = url.replace("wss://127.0.0.1", "wss://localhost")
        answered, said = call(client, command, host, case.right)
        if not answered:
            return f"FAILED: {said[:300]}"
        if case.wrong is not None and call(client, command, host, case.wrong)[0]:
            return "FAILED: wrong credentials are let in"
    return "ok"


# The table.

Results = dict[str, dict[str, str]]  # by client, by case


def table(results: Results, cases: list[str]) -> str:
    """Return what happened as a table in Markdown, with the reasons below it."""
    lines = [f"| | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    remarks: dict[str, None] = {}
    for case in cases:
        cells = []
        for client, of_client in results.items():
            result, _, why = of_client.get(case, of_client.get("", "-")).partition(": ")
            if why:
                remarks[f"{client}, {case if case in of_client else 'all'}: {why}."] = None
            cells.append({"ok": "yes", "-": "no"}.get(result, result))
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *remarks])


def write(text: str, file: Path) -> None:
    """Put a table into a page, between its marks."""
    page = file.read_text("utf-8")
    begin, end = "<!-- clients: begin -->\n", "<!-- clients: end -->"
    before, rest = page.split(begin)
    file.write_text(f"{before}{begin}{text.rstrip()}\n{end}{rest.split(end)[1]}", "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [client.name for client in CLIENTS]
    parser.add_argument("--only", default=",".join(names), help="clients, with commas between them")
    parser.add_argument("--strict", action="store_true", help="NOT RUN is a failure")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(names):
        parser.error(f"unknown clients {', '.join(sorted(unknown))}; known are {', '.join(names)}")
    failed = 0
    ran = 0
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="mq9-clients-") as name:
        cases = make_cases(Path(name))
        for client in CLIENTS:
            if client.name not in wanted:
                continue
            try:
                command = client.prepare()
            except (NotRunError, subprocess.TimeoutExpired) as error:
                print(f"{client.name:14} NOT RUN: {error}", flush=True)
                results[client.name] = {"": f"NOT RUN: {error}"}
                failed += arguments.strict
                continue
            for case in cases:
                result = result_of(client, command, case)
                ran += result != "-"
                failed += result.startswith("FAILED")
                result += f": {client.cannot[case.name]}" if result == "-" else ""
                results.setdefault(client.name, {})[case.name] = result
                print(f"{client.name:14} {case.name:14} {result}", flush=True)
    print(f"{ran} ran, {failed} failed")
    if arguments.write:
        write(table(results, [case.name for case in cases]), PAGE)
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
