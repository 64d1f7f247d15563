"""The reference broker does what the model says, and a broker with a mistake does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from mq9_conformance.model.comparison import Difference, Step, as_scenario, compare
from mq9_conformance.model.sequences import sequences
from mq9_conformance.spec import find_spec, load_spec

ROOT = Path(__file__).resolve().parent.parent.parent
SPEC = load_spec(find_spec())
# What a shrunk difference becomes; look here when the test below fails.
FOUND = ROOT / "reports" / "model-difference.yaml"


def write(difference: Difference, path: Path) -> None:
    """Keeps the steps that lead to a difference as a scenario."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(as_scenario(difference.steps, "model/difference", ["REPLY-001"]), encoding="utf-8")


@given(sequences())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_broker_does_what_the_model_says(steps: Sequence[Step]) -> None:
    difference = compare(SPEC, steps)
    if difference is not None:
        write(difference, FOUND)
    assert difference is None, f"{difference}\nas a scenario: {FOUND}"
