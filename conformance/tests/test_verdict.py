import pytest

from mq9_conformance.values import ScenarioError
from mq9_conformance.verdict import (
    Column,
    KnownFailure,
    Result,
    RunReport,
    Status,
    differences,
    judge,
    load_known,
    uncovered,
)

GO = (Column("go"),)
RULE = KnownFailure("area/*", "go", "issue 7")


def test_only_failures_are_excused():
    assert judge(Status.FAILED, "area/x", "go", [RULE]) == (Status.KNOWN, "issue 7")
    assert judge(Status.ERROR, "area/x", "go", [RULE])[0] is Status.ERROR
    assert judge(Status.FAILED, "area/x", "rust", [RULE])[0] is Status.FAILED
    assert judge(Status.FAILED, "other/x", "go", [RULE])[0] is Status.FAILED


def test_a_known_failure_that_passes_is_red():
    status, why = judge(Status.PASSED, "area/x", "go", [RULE])
    assert status is Status.UNEXPECTED and status.red
    assert "remove the rule" in why
    assert not Status.KNOWN.red


@pytest.fixture
def report(spec, scenarios):
    text = "- scenario: area/x\n  covers: [SEND-001]\n  steps: [{a.close: {}}]\n"
    loaded = scenarios(text)

    def make(*statuses, known=(), strict=False, filtered=True, columns=GO):
        results = [Result(loaded[0], "go", status, 0.1) for status in statuses]
        made = RunReport(spec, loaded, list(columns), results, strict=strict, filtered=filtered)
        made.conclude(list(known), loaded)
        return made

    return make


def test_green_and_red(report):
    assert report(Status.PASSED).green
    assert report(Status.KNOWN).green
    for status in (Status.FAILED, Status.ERROR, Status.UNEXPECTED):
        assert not report(Status.PASSED, status).green


def test_nothing_ran_is_red(report):
    assert report().problems == ["nothing ran"]


def test_a_rule_that_matches_nothing_is_red(report):
    problems = report(Status.PASSED, known=[KnownFailure("gone/*", "go", "x")]).problems
    assert problems == ["known failure 'gone/*' matches no scenario"]


def test_what_could_not_run_is_red_only_when_strict(report):
    columns = [Column("go"), Column("rust", not_run="cargo is not installed")]
    assert report(Status.PASSED, columns=columns).green
    assert report(Status.PASSED, columns=columns, strict=True).problems == [
        "rust was not run: cargo is not installed"
    ]


def test_an_uncovered_must_is_red_in_a_whole_run(report):
    (problem,) = report(Status.PASSED, filtered=False).problems
    assert "MUST requirements" in problem and "SEND-002" in problem and "SEND-001" not in problem


def test_vectors_cover_what_sdks_must_do(spec):
    assert "SDK-012" not in uncovered(spec, [])
    assert "SEND-002" in uncovered(spec, [])


def test_known_failures_need_a_reason(tmp_path):
    path = tmp_path / "known.yaml"
    assert load_known(path) == []
    path.write_text("- {scenario: a/b, sdk: go, why: later}\n")
    assert load_known(path) == [KnownFailure("a/b", "go", "later")]
    path.write_text("- {scenario: a/b, sdk: go}\n")
    with pytest.raises(ScenarioError, match="`scenario`, `sdk` and `why`"):
        load_known(path)


def test_a_difference_between_sdks_shows_both_sides(spec, scenarios):
    (scenario,) = scenarios("- scenario: area/x\n  covers: [SEND-001]\n  steps: [{a.close: {}}]\n")

    def result(column, subject):
        transcript = {"a": [{"subject": "same"}, {"subject": subject}]}
        return Result(scenario, column, Status.PASSED, 0.1, transcript=transcript)

    assert differences([result("go", "x"), result("rust", "x")]) == []
    (text,) = differences([result("go", "x"), result("js", "y"), result("rust", "x")])
    head, *lines = text.splitlines()
    assert head == "area/x: SDKs sent different requests:"
    assert [line.strip() for line in lines if line.strip()[:1] in "+-"] == [
        "--- go, rust",
        "+++ js",
        '-a: {"subject":"x"}',
        '+a: {"subject":"y"}',
    ]
