"""Runs the quickstart of the README, which is examples/quickstart.rs, and every other example.

The broker is that of MQ9_URL; one is started if that is unset.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
BUILT = Path(os.environ["CARGO_TARGET_DIR"]) / "debug" / "examples"
WANTED = {
    "quickstart": "urgent {",
    "worker_pool": "jobs done: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]",
    "request_reply": "answer: HOW ARE YOU?",
    "agent_registry": "0 agents left",
}
"""What each example has to print; the demo's agent runs in `make demo`."""
OTHERS = {"demo_agent"}


def readme_is_the_example() -> bool:
    """Whether the README's quickstart is the example, so that running the one runs the other."""
    blocks = re.findall(r"```rust\n(.*?)```", (FOLDER / "README.md").read_text("utf-8"), re.DOTALL)
    example = (FOLDER / "examples" / "quickstart.rs").read_text("utf-8")
    return blocks[0].strip() in example


def run_all(url: str) -> list[str]:
    """Runs every example; gives what is wrong."""
    wrong = []
    for path in sorted((FOLDER / "examples").glob("*.rs")):
        if path.stem in OTHERS:
            continue
        done = subprocess.run(
            [BUILT / path.stem],
            env={**os.environ, "MQ9_URL": url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode or WANTED[path.stem] not in done.stdout:
            wrong.append(f"{path.stem} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return wrong


def main() -> int:
    """Runs the examples against a broker."""
    wrong = [] if readme_is_the_example() else ["README.md: the quickstart is not examples/quickstart.rs"]
    url = os.environ.get("MQ9_URL")
    if url:
        wrong += run_all(url)
    else:
        command = [os.environ["MQ9_BROKER"], "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as broker:
            try:
                ready = next((line for line in broker.stdout or () if "ready nats=" in line), "")
                wrong += run_all(ready.split("nats=")[1].split()[0])
            finally:
                broker.terminate()
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
