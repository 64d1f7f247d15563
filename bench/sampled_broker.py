"""The broker, with a sampler inside: on each tick of its own CPU clock it notes where it is.

A sampler in another process sees the broker of a busy machine mostly where the scheduler lets it look: in
system calls. Usage: sampled_broker.py FILE BROKER_ARGUMENTS...; FILE gets a line for each stack and how
often it was seen.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from mq9_broker.cli import main

_INTERVAL_S = 0.001
_stacks: Counter[tuple[tuple[str, str, int], ...]] = Counter()


def _sample(_: int, frame: FrameType | None) -> None:
    stack = []
    while frame is not None:
        code = frame.f_code
        stack.append((str(getattr(code, "co_qualname", code.co_name)), code.co_filename, frame.f_lineno))
        frame = frame.f_back
    _stacks[tuple(stack)] += 1


def _switch(_: int, __: FrameType | None) -> None:
    """SIGUSR2: begin; once more: end."""
    running = signal.getitimer(signal.ITIMER_PROF)[1] > 0
    signal.setitimer(signal.ITIMER_PROF, 0 if running else _INTERVAL_S, 0 if running else _INTERVAL_S)


def _write(target: Path) -> None:
    lines = []
    for stack, count in _stacks.items():
        frames = (f"{name} ({Path(file).name}:{line})" for name, file, line in reversed(stack))
        lines.append(";".join(frames) + f" {count}\n")
    target.write_text("".join(lines))


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR2, _switch)
    _, file_name, *arguments = sys.argv
    try:
        sys.exit(main(arguments))
    finally:
        _write(Path(file_name))
