"""An agent's status: what a REPORT says besides who it is about."""

from __future__ import annotations

from typing import Final

import msgspec

from mq9_broker._generated.commands import AgentReport

# Who it is about; the rest of the body is the status.
_WHO: Final = frozenset(AgentReport.__struct_fields__) - {"status"}

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def status_of(body: bytes) -> bytes:
    """Return a REPORT's JSON text without who it is about; what is left is untouched, digit by digit."""
    kept = [
        b"%b:%b" % (_encode(name), bytes(text))
        for name, text in _members(body or b"{}").items()
        if name not in _WHO
    ]
    return b"{%b}" % b",".join(kept)
