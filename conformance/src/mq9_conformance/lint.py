"""Mistakes in scenario files, found without running anything: all at once, each with file and line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .scenario import Scenario, Step, kind_of, known_actions
from .spec import Spec
from .values import ScenarioError, is_automatic, milliseconds, variables_in

_LONGEST_SLEEP_MS = 2000


def lint(scenarios: Iterable[Scenario], spec: Spec) -> list[str]:
    """Every mistake as `file:line: what is wrong, what was expected`."""
    problems: list[str] = []
    seen: dict[str, str] = {}
    for scenario in scenarios:
        if scenario.name in seen:
            problems.append(
                f"{scenario.place}: scenario {scenario.name} stands in {seen[scenario.name]} already"
            )
        seen[scenario.name] = scenario.place
        problems += lint_scenario(scenario, spec)
    return problems


def lint_scenario(scenario: Scenario, spec: Spec) -> list[str]:
    """The mistakes of one scenario."""
    problems = [
        f"{scenario.place}: {name} is no requirement of the spec"
        for name in scenario.covers
        if name not in spec.requirements
    ]
    if not scenario.covers:
        problems.append(f"{scenario.place}: a scenario covers at least one requirement")
    layer = scenario.data.get("layer")
    if layer is not None and layer != scenario.layer:
        problems.append(f"{scenario.place}: layer {layer} was given, this is {scenario.layer}")
    unknown = scenario.data.keys() - {
        "scenario",
        "covers",
        "pitfall",
        "doc",
        "layer",
        "clients",
        "scripted",
        "intercept",
        "server",
        "broker",
        "timeout_s",
        "lockstep",
        "other",
        "steps",
    }
    problems += [f"{scenario.place}: {key!r} is no key of a scenario" for key in sorted(unknown)]
    strangers = sorted(scenario.other - set(scenario.sdk_clients()))
    problems += [f"{scenario.place}: other: {name} is no SDK client of the scenario" for name in strangers]
    if scenario.other and scenario.other >= set(scenario.sdk_clients()):
        problems.append(f"{scenario.place}: other: a client must be left for the SDK under test")
    by_sdk = [n for n in scenario.covers if n in spec.requirements and spec.requirements[n].by == "sdk"]
    if by_sdk and not scenario.needs_sdk:
        problems.append(
            f"{scenario.place}: covers {', '.join(by_sdk)}, which an SDK must fulfil, without an SDK client"
        )
    bound: set[str] = {"url", "dead_url"}
    for key in ("scripted", "intercept"):
        problems += _lint_rules(scenario, scenario.data.get(key) or [], spec, scenario.line)
    problems += _lint_steps(scenario, scenario.steps, spec, bound)
    return problems


def _lint_steps(scenario: Scenario, steps: tuple[Step, ...], spec: Spec, bound: set[str]) -> list[str]:
    problems: list[str] = []
    for step in steps:
        where = f"{scenario.file.name}:{step.line}"
        inner = set(bound)
        if step.action == "for":
            for values in step.args:
                inner |= set(values)
            names = [frozenset(values) for values in step.args]
            if len(set(names)) > 1:
                problems.append(f"{where}: every item of `for` must have the same names")
        if step.action == "repeat":
            inner.add("i")
        if step.steps:
            problems += _lint_steps(scenario, step.steps, spec, inner)
            bound |= inner
        problems += [f"{where}: {problem}" for problem in _lint_step(scenario, step, spec)]
        if step.action not in {"for", "repeat"}:
            used = variables_in(step.args) if not _binds_by_args(scenario, step) else set()
            free = {name for name in used - bound if not is_automatic(name)}
            problems += [f"{where}: ${name} is used before an `expect` has bound it" for name in sorted(free)]
        bound |= variables_in(step.extra) | variables_in(step.args)
    return problems


def _binds_by_args(scenario: Scenario, step: Step) -> bool:
    """Handles' `message`, `error` and so on match with their arguments, as `expect` does."""
    if step.target is None:
        return step.action in {"scripted", "intercept"}
    kind = kind_of(step.target, scenario.handles)
    return kind in {"subscription", "consumer", "keep_alive"} or step.action == "wire"


def _lint_step(scenario: Scenario, step: Step, spec: Spec) -> list[str]:
    problems: list[str] = []
    if step.target is None:
        return _lint_standalone(scenario, step, spec)
    kind = kind_of(step.target, scenario.handles)
    actions = known_actions(spec, kind)
    if step.action not in actions:
        return [f"{step.title}: a {kind} has no action {step.action!r}; it has {', '.join(sorted(actions))}"]
    if kind in {"client", "raw"} and step.action in spec.by_method:
        operation = spec.by_method[step.action]
        if not isinstance(step.args, Mapping):
            return [f"{step.title}: a map of arguments was expected, got {step.args!r}"]
        unknown = step.args.keys() - operation.parameters.keys()
        problems += [f"{step.title} has no parameter {name!r}" for name in sorted(unknown)]
    if step.action in {"consume", "iterate"} and isinstance(step.args, Mapping):
        unknown = step.args.keys() - spec.consume_parameters
        problems += [f"{step.title} has no parameter {name!r}" for name in sorted(unknown)]
    if step.action in {"consume", "iterate", "agent_keep_alive", "subscribe"} and step.label is None:
        problems.append(f"{step.title} needs a name: `as: k`")
    if "expect" in step.extra and "expect_error" in step.extra:
        problems.append(f"{step.title}: `expect` and `expect_error` exclude each other")
    error = step.extra.get("expect_error") or {}
    kinds = spec.kinds | {"handler"}
    if (
        isinstance(error.get("kind"), str)
        and error["kind"] not in kinds
        and not error["kind"].startswith("$")
    ):
        problems.append(f"{step.title}: kind {error['kind']!r} is none of {', '.join(sorted(spec.kinds))}")
    if "wire" in step.extra and kind != "client":
        problems.append(f"{step.title}: `wire` is about what an SDK client sent")
    return problems


def _lint_standalone(scenario: Scenario, step: Step, spec: Spec) -> list[str]:
    try:
        if step.action in {"clock", "sleep"}:
            duration = milliseconds(str(step.args))
            if step.action == "sleep" and duration > _LONGEST_SLEEP_MS:
                return [f"sleep: at most {_LONGEST_SLEEP_MS} ms"]
    except ScenarioError as error:
        return [str(error)]
    if step.action == "broker":
        if "broker" not in scenario.data:
            return ["broker: only in a scenario with a broker of its own (`broker: {}`)"]
        if step.args not in {"restart", "kill", "stop", "start"}:
            return [f"broker: restart, kill, stop or start was expected, got {step.args!r}"]
    if step.action == "server" and step.args not in {"disconnect", "refuse", "accept"}:
        return [f"server: disconnect, refuse or accept was expected, got {step.args!r}"]
    if step.action in {"scripted", "intercept"}:
        if step.action == "scripted" and "scripted" not in scenario.data:
            return ["scripted: the scenario itself must have `scripted`, else `intercept` is meant"]
        return _lint_rules(scenario, step.args, spec, None)
    return []


def _lint_rules(scenario: Scenario, rules: object, spec: Spec, line: int | None) -> list[str]:
    where = f"{scenario.file.name}:{line}: " if line is not None else ""
    if not isinstance(rules, list):
        return [f"{where}a list of rules was expected"]
    problems = []
    for rule in rules:
        if not isinstance(rule, Mapping) or "on" not in rule:
            problems.append(f"{where}a rule needs `on`")
            continue
        for name in rule["on"] if isinstance(rule["on"], list) else [rule["on"]]:
            if name != "*" and name not in spec.operations and not str(name).startswith(spec.prefix):
                problems.append(f"{where}on: {name!r} is no operation of the spec")
        if ("reply" in rule) == ("replies" in rule):
            problems.append(f"{where}a rule has either `reply` or `replies`")
    return problems
