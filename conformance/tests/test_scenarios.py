import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from mq9_conformance.lint import lint
from mq9_conformance.scenario import load_file, load_folder
from mq9_conformance.values import ScenarioError

FOLDER = Path(__file__).parents[1] / "scenarios"

HEAD = "- scenario: some/thing\n  covers: [SEND-001]\n"


def test_every_scenario_file_is_without_mistakes(spec):
    scenarios = load_folder(FOLDER)
    assert lint(scenarios, spec) == []
    assert len(scenarios) >= 150


def test_every_scenario_file_has_the_shape_of_the_schema():
    schema = json.loads(
        resources.files("mq9_conformance").joinpath("scenario.schema.json").read_text("utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in sorted(FOLDER.rglob("*.yaml")):
        data = [dict(scenario.data) for scenario in load_file(path)]
        errors = [f"{path.name}: {error.json_path}: {error.message}" for error in validator.iter_errors(data)]
        assert errors == []


def test_words_and_times_of_yaml_1_1_are_text(scenarios):
    (scenario,) = scenarios(HEAD + "  steps:\n    - a.send: {mail_address: on, payload: 1:30, key: yes}\n")
    assert scenario.steps[0].args == {"mail_address": "on", "payload": "1:30", "key": "yes"}


def test_lines_are_kept(scenarios):
    (scenario,) = scenarios(HEAD + "  steps:\n    - clock: +1s\n    - a.close: {}\n")
    assert (scenario.line, [step.line for step in scenario.steps]) == (1, [4, 5])


def test_where_a_scenario_can_run(scenarios):
    text = """
- scenario: x/both
  covers: [SEND-001]
  steps:
    - a.send: {mail_address: $box, payload: x}
- scenario: x/sdk-only
  covers: [SEND-001]
  steps:
    - a.send: {mail_address: NO, payload: x}
      expect_error: {kind: invalid_argument}
- scenario: x/scripted
  covers: [SEND-001]
  scripted: [{on: msg.send, reply: {none: true}}]
  steps:
    - a.send: {mail_address: box, payload: x}
- scenario: x/raw-only
  covers: [SEND-001]
  steps:
    - raw.request: {subject: x}
    - clock: +1s
"""
    both, sdk_only, scripted, raw_only = scenarios(text)
    assert both.needs_sdk and both.not_raw() is None
    assert "only an SDK finds" in sdk_only.not_raw()
    assert scripted.layer == "L2" and scripted.not_raw()
    assert not raw_only.needs_sdk
    assert "test clock" in raw_only.not_elsewhere(has_clock=False)
    assert raw_only.not_elsewhere(has_clock=True) is None


@pytest.mark.parametrize(
    ("steps", "mistake"),
    [
        ("- a.sned: {}", "a client has no action 'sned'"),
        ("- a.send: {mail_adress: b}", "has no parameter 'mail_adress'"),
        ("- a.send: {mail_address: $later, payload: x}", "$later is used before"),
        ("- raw.send: {mail_address: b}\n      wire: nothing", "`wire` is about what an SDK client sent"),
        ("- a.consume: {mail_address: b, group_name: g}", "needs a name: `as: k`"),
        ("- clock: 5 apples", "is no duration"),
        ("- sleep: 3s", "at most 2000 ms"),
        ("- broker: restart", "only in a scenario with a broker of its own"),
        ("- scripted: []", "`intercept` is meant"),
        ("- intercept: [{on: msg.sned, reply: {none: true}}]", "'msg.sned' is no operation"),
        ("- a.send: {payload: x}\n      expect: 1\n      expect_error: {code: x}", "exclude each other"),
        ("- a.send: {payload: x}\n      expect_error: {kind: servre}", "kind 'servre' is none of"),
        ("- for: [{a: 1}, {b: 2}]\n      steps: [{a.close: {}}]", "must have the same names"),
    ],
)
def test_mistakes_are_found_with_their_line(spec, scenarios, steps, mistake):
    found = lint(scenarios(f"{HEAD}  steps:\n    {steps}\n"), spec)
    assert len(found) == 1
    assert mistake in found[0]
    assert found[0].startswith("some.yaml:4: ")


def test_unknown_requirements_and_doubled_names_are_mistakes(spec, scenarios):
    text = "- scenario: x/y\n  covers: [SEND-999]\n  steps: [{a.close: {}}]\n" * 2
    found = lint(scenarios(text), spec)
    assert sum("SEND-999 is no requirement" in problem for problem in found) == 2
    assert any("stands in some.yaml:1 already" in problem for problem in found)


def test_a_requirement_on_sdks_needs_an_sdk(spec, scenarios):
    text = "- scenario: x/y\n  covers: [SDK-001]\n  steps: [{raw.flush: {}}]\n"
    assert "without an SDK client" in lint(scenarios(text), spec)[0]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a: 1", "a list of scenarios was expected"),
        ("- covers: []", "a map with `scenario`"),
        ("- scenario: a/b\n  covers: [SEND-001]\n  steps: []", "must be lists"),
        (HEAD + "  steps:\n    - {a.send: {}, b.send: {}}", "exactly one action"),
        (HEAD + "  steps:\n    - juggle: 5", "'juggle' is no action"),
        (HEAD + "  steps:\n    - a.send: {payload: 1, payload: 2}", "stands here twice"),
        (HEAD + "  steps: [", "not YAML"),
        (HEAD + "  steps:\n    - repeat: 5", "`steps` belong to `repeat`"),
    ],
)
def test_files_that_are_no_scenarios_are_refused_with_a_line(scenarios, text, mistake):
    with pytest.raises(ScenarioError, match=r"some\.yaml:\d+: ") as error:
        scenarios(text)
    assert mistake in str(error.value)
