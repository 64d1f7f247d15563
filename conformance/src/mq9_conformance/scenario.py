"""Scenarios: read from YAML with their lines, split into steps, and judged as to where they can run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from .spec import Spec
from .values import ScenarioError

RAW_ACTIONS = frozenset({"request", "requests", "publish", "subscribe", "flush", "connect", "close"})
TCP_ACTIONS = frozenset({"open", "write", "expect", "closed", "close"})
HTTP_ACTIONS = frozenset({"get", "post"})
CLIENT_ACTIONS = frozenset(
    {"connect", "close", "consume", "iterate", "agent_keep_alive", "wire", "connection_open"}
)
HANDLE_ACTIONS = {
    "call": frozenset({"await", "pending", "cancel"}),
    "subscription": frozenset({"message", "none", "unsubscribe"}),
    "consumer": frozenset({"message", "finish", "error", "quiet", "stop", "cancel", "ended"}),
    "iteration": frozenset({"next", "ack", "nack", "renew", "leave", "await", "pending", "cancel"}),
    "keep_alive": frozenset({"stop", "error"}),
}
STANDALONE = ("clock", "sleep", "broker", "server", "scripted", "intercept", "repeat", "for")
ASSERTIONS = frozenset(
    {
        "expect",
        "expect_error",
        "msg_ids",
        "payloads",
        "wire",
        "as",
        "decode",
        "handler",
        "error_hook",
        "doc",
        "steps",
    }
)
_HANDLE_OF = {
    "consume": "consumer",
    "iterate": "iteration",
    "agent_keep_alive": "keep_alive",
    "subscribe": "subscription",
}
_SDK_ONLY_KINDS = frozenset({"invalid_argument", "protocol", "cancelled", "connection_closed"})


class _TwiceError(Exception):
    """A key that a map has already: `line: what`."""


class Located(dict[str, Any]):
    """A map that remembers the line on which it began."""

    line: int = 0


# The parser in C, where PyYAML has it, is ten times as fast; what is made of its events is the same.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """YAML with the scalars of YAML 1.2, so that `on` and `1:30` are text, and with lines."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", ["t", "f"]),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def _construct_integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)))


def _construct_map(loader: _Loader, node: yaml.MappingNode) -> Iterator[Located]:
    data = Located()
    data.line = node.start_mark.line + 1
    yield data
    keys: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in keys:
            raise _TwiceError(f"{key_node.start_mark.line + 1}: {key!r} stands here twice")
        keys.add(key)
    data.update({str(key): value for key, value in loader.construct_mapping(node, deep=True).items()})


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_map)


@dataclass(frozen=True)
class Step:
    """One step: `target.action` with arguments, or a standalone one like `clock`."""

    target: str | None
    action: str
    args: Any
    extra: dict[str, Any]
    line: int
    steps: tuple[Step, ...] = ()

    @property
    def title(self) -> str:
        """The step as it is written, without its arguments."""
        return f"{self.target}.{self.action}" if self.target else self.action

    @property
    def label(self) -> str | None:
        """The name under which the step goes on in the background."""
        return self.extra.get("as")


@dataclass
class Scenario:
    """One scenario of a file."""

    name: str
    file: Path
    line: int
    covers: tuple[str, ...]
    steps: tuple[Step, ...]
    data: Mapping[str, Any]
    handles: dict[str, str] = field(default_factory=dict)
    other_sdk: str | None = None
    """For one run of a scenario with `other`: the SDK that plays those clients."""

    @property
    def base(self) -> str:
        """The name in the file; that of a run with another SDK has `/with-SDK` at its end."""
        return self.name.removesuffix(f"/with-{self.other_sdk}")

    @property
    def other(self) -> frozenset[str]:
        """The clients that every SDK plays in turn, the other clients being the SDK under test."""
        return frozenset(self.data.get("other") or ())

    @property
    def wants_no_agents(self) -> bool:
        """Whether it is content with a broker that others have used, if no agents are left there."""
        return dict(self.data.get("broker") or {}) == {"agents": "none"}

    def with_other(self, sdk: str) -> Scenario:
        """The run in which `sdk` plays the clients of `other`."""
        return replace(self, name=f"{self.name}/with-{sdk}", other_sdk=sdk)

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file.name}:{self.line}"

    @property
    def timeout_s(self) -> float:
        """How long one run may take."""
        return float(self.data.get("timeout_s", 20))

    @property
    def layer(self) -> str:
        """L2 with a scripted broker, L3 on a real one."""
        return "L2" if "scripted" in self.data else "L3"

    def all_steps(self) -> Iterator[Step]:
        """Every step, those inside `repeat` and `for` too."""
        return _walk(self.steps)

    def sdk_clients(self) -> list[str]:
        """The names of SDK clients, in the order in which they appear."""
        names: dict[str, None] = dict.fromkeys(
            n for n in self.data.get("clients") or {} if not n.startswith("raw")
        )
        for step in self.all_steps():
            if step.target and kind_of(step.target, self.handles) == "client":
                names[step.target] = None
        return list(names)

    @property
    def needs_sdk(self) -> bool:
        """Says whether SDK clients take part."""
        return bool(self.sdk_clients())

    def features(self) -> set[str]:
        """What an adapter must be able to do besides plain calls."""
        actions = {step.action for step in self.all_steps() if step.target in self.sdk_clients()}
        needed = {
            f
            for f, a in (("consume", "consume"), ("iterate", "iterate"), ("keep_alive", "agent_keep_alive"))
            if a in actions
        }
        for options in (self.data.get("clients") or {}).values():
            if options and options.get("existing"):
                needed.add("existing_connection")
        return needed

    def not_raw(self) -> str | None:
        """Why raw requests cannot stand in for an SDK here, None if they can."""
        if self.other:
            return "it is about two SDKs"
        if "scripted" in self.data or "intercept" in self.data:
            return "it is about how an SDK takes odd replies"
        for options in (self.data.get("clients") or {}).values():
            if options and options.keys() - {"timeout_ms"}:
                return "it is about how an SDK connects"
        clients = set(self.sdk_clients())
        for step in self.all_steps():
            if step.action in {"server", "scripted", "intercept"} and step.target is None:
                return "it is about how an SDK takes odd moments"
            if step.target in clients and step.action in CLIENT_ACTIONS - {"close"}:
                return f"it uses {step.action} of an SDK"
            if step.action == "cancel" or "decode" in step.extra:
                return "it uses an SDK's own means"
            if (step.extra.get("expect_error") or {}).get("kind") in _SDK_ONLY_KINDS:
                return "its failure is one that only an SDK finds"
        return None

    def not_elsewhere(self, *, has_clock: bool) -> str | None:
        """Why this cannot run against a broker that the runner did not start, None if it can."""
        if "broker" in self.data:
            return "it needs a broker of its own"
        for step in self.all_steps():
            if step.target == "http" or (step.target is None and step.action == "broker"):
                return "it needs a broker that the runner starts"
            if step.target is None and step.action == "clock" and not has_clock:
                return "it needs a test clock (--http URL)"
        return None


def _walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        yield step
        yield from _walk(step.steps)


def kind_of(target: str, handles: Mapping[str, str]) -> str:
    """What a name in front of a dot stands for: raw, tcp, http, a kind of handle, or client."""
    if target.startswith("raw"):
        return "raw"
    if target == "http":
        return "http"
    if re.fullmatch(r"tcp\d*", target):
        return "tcp"
    return handles.get(target, "client")


def load_file(path: Path) -> list[Scenario]:
    """Reads one file; raises ScenarioError with file:line where it is no list of scenarios."""
    try:
        data = yaml.load(path.read_text("utf-8"), Loader=_Loader)  # noqa: S506 (a safe loader)
    except _TwiceError as error:
        raise ScenarioError(f"{path.name}:{error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ScenarioError(f"{path.name}:{line}: not YAML: {error.problem}") from error
    if not isinstance(data, list):
        raise ScenarioError(f"{path.name}:1: a list of scenarios was expected")
    return [scenario_of(path, item) for item in data]


def load_folder(folder: Path) -> list[Scenario]:
    """Reads every file of a folder, in the order of their names."""
    paths = sorted(folder.rglob("*.yaml"))
    if not paths:
        raise ScenarioError(f"{folder}: there is no *.yaml file here")
    return [scenario for path in paths for scenario in load_file(path)]


def located(value: Any) -> Any:
    """Plain maps, as JSON gives them, as maps with a line (0)."""
    if isinstance(value, Mapping):
        return Located({name: located(item) for name, item in value.items()})
    return [located(item) for item in value] if isinstance(value, list) else value


def scenario_of(path: Path, item: Any) -> Scenario:
    """Makes a scenario of one item of a file; raises ScenarioError with file:line where it is none."""
    if not isinstance(item, Located) or not isinstance(item.get("scenario"), str):
        raise ScenarioError(
            f"{path.name}:{getattr(item, 'line', 1)}: a map with `scenario`, `covers`, `steps` was expected"
        )
    covers, steps = item.get("covers"), item.get("steps")
    if not isinstance(covers, list) or not isinstance(steps, list) or not steps:
        raise ScenarioError(f"{path.name}:{item.line}: `covers` and `steps` must be lists")
    scenario = Scenario(
        name=item["scenario"],
        file=path,
        line=item.line,
        covers=tuple(str(name) for name in covers),
        steps=tuple(_step(path, step) for step in steps),
        data=item,
    )
    for step in scenario.all_steps():
        if step.label:
            scenario.handles[step.label] = _HANDLE_OF.get(step.action, "call")
    return scenario


def _step(path: Path, item: Any) -> Step:
    if not isinstance(item, Located):
        raise ScenarioError(f"{path.name}: a step must be a map, got {item!r}")
    where = f"{path.name}:{item.line}"
    actions = [key for key in item if key not in ASSERTIONS]
    if len(actions) != 1:
        raise ScenarioError(
            f"{where}: a step has exactly one action, got {', '.join(map(str, actions)) or 'none'}"
        )
    key = actions[0]
    extra = {name: value for name, value in item.items() if name in ASSERTIONS and name != "steps"}
    inner = tuple(_step(path, step) for step in item.get("steps") or [])
    if "." in key:
        target, _, action = key.partition(".")
        return Step(target, action, item[key] if item[key] is not None else {}, extra, item.line)
    if key not in STANDALONE:
        raise ScenarioError(
            f"{where}: {key!r} is no action: `client.method` or one of {', '.join(STANDALONE)} was expected"
        )
    if (key in {"repeat", "for"}) != bool(inner):
        raise ScenarioError(f"{where}: `steps` belong to `repeat` and `for`, and only there")
    return Step(None, key, item[key], extra, item.line, inner)


def known_actions(spec: Spec, kind: str) -> frozenset[str]:
    """Which actions a name of this kind has."""
    methods = frozenset(spec.by_method)
    table = {
        "client": CLIENT_ACTIONS | methods,
        "raw": RAW_ACTIONS | methods,
        "tcp": TCP_ACTIONS,
        "http": HTTP_ACTIONS,
    }
    return table.get(kind) or HANDLE_ACTIONS.get(kind, frozenset())
