"""How long the runner waits for what must come. Nothing that passes ever waits this long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Patience:
    """Seconds until something that does not come is a failure."""

    request_s: float = 10.0
    """For a request to be seen on the wire."""
    event_s: float = 15.0
    """For an event of a consumer."""


PATIENCE = Patience()
"""The one of this process; the mutants' run is less patient, because there most waits are in vain."""
