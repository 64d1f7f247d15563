"""Targets: a folder with `target.yaml` and templates. What a language is like is data here, never code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mq9_codegen.comments import CommentStyle, comment_style
from mq9_codegen.layout import Style
from mq9_codegen.load import Validator, explain_violation, shown_path
from mq9_codegen.names import CASINGS, cased
from mq9_codegen.problems import Problem, SpecError, shown
from mq9_codegen.source import Document, load_document

BUILT_IN = Path(__file__).parent / "targets"
"""The folder of the targets that come with the package."""

LANGUAGES = Path(__file__).parent / "languages"
"""What targets of the same language share: one YAML file a language."""

ROLES = ("type", "method", "field", "parameter", "constant", "file", "enum_value", "function", "test")
"""What a name may be the name of; each has a casing of its own."""


@dataclass(frozen=True)
class Strings:
    """How a language writes string literals.

    Attributes:
        quotes: The possible quotation marks; the first is used unless another needs fewer escapes.
        escapes: What stands for single characters, besides the quotation mark and the backslash.
        control: What stands for other control characters; `{code}` is formatted with the code point.
        astral: Likewise for characters beyond U+FFFF; empty = they stand for themselves.
    """

    quotes: tuple[str, ...] = ('"',)
    escapes: Mapping[str, str] = field(default_factory=lambda: {"\n": "\\n", "\r": "\\r", "\t": "\\t"})
    control: str = "\\u{code:04x}"
    astral: str = ""


@dataclass(frozen=True)
class Literals:
    """How a language writes literals of JSON values."""

    true: str = "true"
    false: str = "false"
    null: str = "null"
    list: tuple[str, str] = ("[", "]")
    map: tuple[str, str] = ("{", "}")
    map_pad: str = ""
    key: str = "{key}: "
    strings: Strings = Strings()


@dataclass(frozen=True)
class Output:
    """One entry of `files`: what is rendered with what into which paths.

    Attributes:
        path: The path below `out`; a template itself, e.g. `reference/{{ operation.name }}.md`.
        template: The template, or empty for another renderer.
        renderer: `jinja` or `datamodel`.
        each: `spec` (one file), `operation`, `object` or `enum` (one file each).
        when: A Jinja expression; where it is false, the file is not written.
        banner: The kind of comment that the banner is, or `none` where the template writes it itself.
        options: For other renderers: their options.
    """

    path: str
    template: str = ""
    renderer: str = "jinja"
    each: str = "spec"
    when: str = ""
    banner: str = "line"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A target as its folder describes it; see README.md, "A target"."""

    name: str
    folder: Path
    document: Document
    doc: str
    out: str
    owns: tuple[str, ...]
    types: Mapping[str, str]
    casing: Mapping[str, str]
    acronyms: frozenset[str]
    reserved: frozenset[str]
    reserved_form: str
    layout: Style
    comments: Mapping[str, CommentStyle]
    literals: Literals
    values: Mapping[str, Any]
    files: tuple[Output, ...]

    @property
    def file(self) -> str:
        """The target's file, as messages show it."""
        return shown_path(self.folder / "target.yaml")

    def name_as(self, role: str, name: str) -> str:
        """A name of the spec in the casing of a role, changed if it is a reserved word."""
        result = cased(name, self.casing.get(role, "snake"), self.acronyms)
        return self.reserved_form.replace("{name}", result) if result in self.reserved else result


def find_targets(folders: list[Path]) -> dict[str, Path]:
    """All target folders, by name; of equal names the first folder counts."""
    result: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/target.yaml")):
            result.setdefault(path.parent.name, path.parent)
    return dict(sorted(result.items()))


def load_target(folder: Path) -> Target:
    """Reads and checks a target.

    Raises:
        SpecError: With everything that is wrong with `target.yaml`.
    """
    problems: list[Problem] = []
    path = folder / "target.yaml"
    document = load_document(path, shown_path(path), problems)
    if document is None:
        raise SpecError(problems)
    schema = json.loads((Path(__file__).parent / "target.schema.json").read_text("utf-8"))
    validator = Validator(schema)
    _extend(document, problems)
    problems += [
        p for error in validator.iter_errors(document.data) for p in explain_violation(document, error)
    ]
    if not problems:
        problems += _policy(folder, document)
    if problems:
        raise SpecError(problems)
    data = document.data
    layout = data.get("layout", {})
    width = layout.get("width", 100)
    return Target(
        name=data["target"],
        folder=folder,
        document=document,
        doc=data["doc"],
        out=data["out"],
        owns=tuple(data["owns"]),
        types=data.get("types", {}),
        casing=data.get("casing", {}),
        acronyms=frozenset(word.lower() for word in data.get("acronyms", ())),
        reserved=frozenset(data.get("reserved", ())),
        reserved_form=data.get("reserved_form", "{name}_"),
        layout=Style(
            width=width,
            indent=layout.get("indent", "    "),
            tab_width=layout.get("tab_width", 4),
            trailing="," if layout.get("trailing", True) else "",
            inner=tuple(sorted(layout.get("inner", {}).items())),
            split_strings=layout.get("split_strings", False),
            assign=layout.get("assign", ""),
            hang=layout.get("hang", 0),
        ),
        comments={name: comment_style(d, width) for name, d in data["comments"].items()},
        literals=_literals(data.get("literals", {})),
        values=data.get("values", {}),
        files=tuple(Output(**entry) for entry in data["files"]),
    )


def _literals(data: Mapping[str, Any]) -> Literals:
    own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    strings: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in own.pop("strings", {}).items()
    }
    return Literals(**own, strings=Strings(**strings))


def _extend(document: Document, problems: list[Problem]) -> None:
    """Puts what the target shares with others of its language under its own keys; its own win."""
    name = document.data.pop("extends", None) if isinstance(document.data, dict) else None
    if name is None:
        return
    known = {path.stem: path for path in sorted(LANGUAGES.glob("*.yaml"))}
    if name not in known:
        problems.append(
            document.problem(
                ("extends",), f"there is no language {shown(name)}", "one of " + ", ".join(known)
            )
        )
        return
    shared = load_document(known[name], shown_path(known[name]), problems)
    for key, value in (shared.data if shared else {}).items():
        own = document.data.get(key)
        if own is None:
            document.data[key] = value
        elif isinstance(own, dict) and isinstance(value, dict):
            document.data[key] = {**value, **own}
        elif isinstance(own, list) and isinstance(value, list):
            document.data[key] = [*value, *(item for item in own if item not in value)]


def _policy(folder: Path, document: Document) -> Iterator[Problem]:
    data = document.data
    if data["target"] != folder.name:
        yield document.problem(("target",), f"'{data['target']}' is not the name of its folder", folder.name)
    for role, casing in data.get("casing", {}).items():
        if role not in ROLES:
            yield document.problem(("casing", role), f"unknown role '{role}'", "one of " + ", ".join(ROLES))
        if casing not in CASINGS:
            yield document.problem(
                ("casing", role), f"unknown casing '{casing}'", "one of " + ", ".join(CASINGS)
            )
    if "{name}" not in data.get("reserved_form", "{name}_"):
        yield document.problem(("reserved_form",), "does not contain the name", "{name} in it")
    for index, entry in enumerate(data["files"]):
        banner = entry.get("banner", "line")
        if banner not in ("none", *data["comments"]):
            yield document.problem(
                ("files", index),
                f"banner '{banner}' is no kind of comment here",
                "none, or one of `comments`",
            )
        if entry.get("renderer", "jinja") == "jinja":
            if "template" not in entry:
                yield document.problem(("files", index), "has no template", "the key 'template'")
            elif not (folder / entry["template"]).is_file():
                yield document.problem(
                    ("files", index),
                    f"template '{entry['template']}' does not exist",
                    "a file beside target.yaml",
                )
