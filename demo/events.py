"""How the demo's processes tell their story: one JSON object a line on standard output."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


def tell(kind: str, text: str, **facts: Any) -> None:
    """Writes an event for `run.py`: its kind, a sentence for people, and facts for the checks."""
    print(json.dumps({"kind": kind, "text": text, **facts}, ensure_ascii=False), flush=True)


async def wait_for(word: str) -> None:
    """Waits until `run.py` writes this word on standard input; its end counts too."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip().decode() == word:
            return
