"""Runs every example, the README's quickstart too, against the broker of MQ9_URL or one started here."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(sys.argv[1])
NAMES = ("quickstart", "worker-pool", "request-reply", "agent-registry")


def same_quickstart() -> bool:
    """Whether the README shows the quickstart that runs here."""
    code = Path("examples/Quickstart.cs").read_text("utf-8").split("// quickstart\n")[1].split("// end")[0]
    wanted = re.sub(r"^ {8}", "", code, flags=re.MULTILINE).strip()
    return wanted.replace("ConnectAsync(url)", 'ConnectAsync("nats://127.0.0.1:4222")') in Path(
        "README.md"
    ).read_text("utf-8")


def run(url: str) -> int:
    """Runs all; gives the number of those that failed."""
    built = ROOT / ".cache" / "csharp" / "bin" / "Examples" / "release" / "mq9-examples.dll"
    failed = 0
    for name in NAMES:
        done = subprocess.run(
            ["dotnet", str(built), name],
            env={**os.environ, "MQ9_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )
        if done.returncode or not done.stdout.strip():
            print(f"example {name} failed with {done.returncode}:\n{done.stdout}")
            failed += 1
    return failed


def main() -> int:
    """Starts a broker if none is named."""
    if not same_quickstart():
        print("the quickstart in README.md is not that of examples/Quickstart.cs")
        return 1
    if url := os.environ.get("MQ9_URL"):
        return run(url)
    command = [
        str(ROOT / ".venv/bin/mq9-broker"),
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--store",
        "memory",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as broker:
        try:
            line = broker.stdout.readline() if broker.stdout else ""
            return run(re.search(r"nats=(\S+)", line)[1])
        finally:
            broker.terminate()


sys.exit(main())
