"""What the targets make: valid, formatted, typed, also from the nastiest specification."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ruff import find_ruff_bin  # type: ignore[import-untyped]

from mq9_codegen.cli import main
from mq9_codegen.commands import read_spec
from mq9_codegen.model import Spec
from mq9_codegen.problems import SpecError
from mq9_codegen.render import render
from mq9_codegen.schemas import schema
from mq9_codegen.target import BUILT_IN, find_targets, load_target

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOY = HERE / "toyspec"
PYTHON = ("python", "broker", "adapter-python")
EVERYTHING = tuple(find_targets([BUILT_IN]))


def overlay_module() -> Any:
    spec = importlib.util.spec_from_file_location("overlay", HERE / "overlay.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def nasty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = overlay_module().overlay(ROOT / "spec", TOY, tmp_path_factory.mktemp("nasty") / "spec")
    return folder


@pytest.fixture(scope="session")
def nasty_output(nasty_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All targets of the nasty specification, in copies of the packages that they belong to."""
    root = tmp_path_factory.mktemp("output")
    for folder in ("sdks/python/src", "sdks/python/adapter", "broker/src"):
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("_generated", "__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", root)
    assert main(["generate", "--spec", str(nasty_folder), "--out", str(root)]) == 0
    return root


def outputs(root: Path, names: tuple[str, ...]) -> list[str]:
    targets = [load_target(BUILT_IN / name) for name in names]
    return [f"{target.out}/{path}" for target in targets for path in sorted(render_paths(root, target))]


def render_paths(root: Path, target: Any) -> list[str]:
    from mq9_codegen.commands import owned_files

    return [path for path in owned_files(target, root / target.out) if path.endswith(".py")]


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
    return done.stdout


def test_there_are_the_targets_of_this_repository() -> None:
    assert set(EVERYTHING) >= {*PYTHON, "docs", "json-schema", "asyncapi"}


def test_python_from_the_nasty_specification_passes_ruff(nasty_output: Path) -> None:
    files = outputs(nasty_output, PYTHON)
    assert len(files) > 10
    run(find_ruff_bin(), "format", "--check", "--no-cache", *files, cwd=nasty_output)
    run(find_ruff_bin(), "check", "--no-cache", *files, cwd=nasty_output)


@pytest.mark.timeout(300)
def test_python_from_the_nasty_specification_passes_mypy(nasty_output: Path) -> None:
    files = outputs(nasty_output, PYTHON)
    paths = "sdks/python/src:broker/src"
    mypy = f"{sys.executable} -m mypy --strict --cache-dir {ROOT}/.cache/codegen-tests/mypy"
    command = f"MYPYPATH={paths} exec {mypy} {' '.join(files)}"
    run("sh", "-c", command, cwd=nasty_output)


def test_python_from_the_nasty_specification_can_be_imported_and_keeps_its_prose(nasty_output: Path) -> None:
    code = (
        "import mq9._generated.models as m, mq9._generated.operations, mq9_broker._generated.operations\n"
        "print(m.Message.__doc__)\nprint(m.ToyObject.__doc__)\n"
    )
    paths = "sdks/python/src:broker/src"
    text = run("sh", "-c", f"PYTHONPATH={paths} exec {sys.executable} -c '{code}'", cwd=nasty_output)
    prose = " ".join(text.split())
    assert overlay_module().NASTY in prose
    assert 'id: Has """ in it. from_: Has \\ and """ in it. global_: */.' in prose


LONG = "abcdefghij_abcdefghij_abcdefghij_abcdefghij_abcdefghij_abcde"


@pytest.mark.parametrize("length", [1, 2, 7, 19, 31, 43, 52, 60])
@pytest.mark.parametrize("what", ["method", "names"])
def test_names_of_any_length_pass_ruff(tmp_path: Path, nasty_folder: Path, length: int, what: str) -> None:
    name = ("q" + "abcdefghi_" * 6)[:length].rstrip("_")
    name += "z" * (length - len(name))
    folder = tmp_path / "spec"
    shutil.copytree(nasty_folder, folder)
    operation, other = (folder / "operations" / f"{file}.yaml" for file in ("class.import", "yield.lambda"))
    text = operation.read_text("utf-8").replace(LONG, "shorter")
    if what == "method":
        text = text.replace("method: import", f"method: {name}")
    else:
        numbered = [f"{name[:-1]}{letter}" for letter in "abcde"] if length > 1 else list("hijkl")
        for old, new in zip(
            ("shorter", "ratio", "await", "import_result", "exceptions"), numbered, strict=True
        ):
            text = re.sub(rf"\b{old}\b", new, text)
    operation.write_text(text, "utf-8")
    other.write_text(other.read_text("utf-8").replace(f"method: {LONG}", "method: lambda"), "utf-8")
    types = folder / "types.yaml"
    types.write_text(types.read_text("utf-8").replace(LONG, name if length > 1 else "y"), "utf-8")
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(ROOT / "pyproject.toml", out)
    chosen = [option for target in PYTHON for option in ("--target", target)]
    assert main(["generate", "--spec", str(folder), "--out", str(out), *chosen]) == 0
    files = outputs(out, PYTHON)
    run(find_ruff_bin(), "format", "--check", "--no-cache", *files, cwd=out)
    run(find_ruff_bin(), "check", "--no-cache", *files, cwd=out)


@pytest.mark.parametrize("name", ["docs", "json-schema", "asyncapi"])
def test_neutral_targets_take_the_toy_specification_as_it_is(toy: Spec, name: str) -> None:
    files = render(toy, load_target(BUILT_IN / name))
    assert files
    assert all(content.endswith("\n") and not content.endswith("\n\n") for content in files.values())


# JSON Schemas


def all_schemas(spec: Spec) -> dict[str, Any]:
    result: dict[str, Any] = {"error": schema(spec, "error")}
    for operation in spec.operations:
        for kind in ("request", "reply", "headers"):
            result[f"{operation.name} {kind}"] = schema(spec, kind, operation.name)
    return result | {item.name: schema(spec, "object", item.name) for item in spec.objects}


@pytest.mark.parametrize("name", ["toy", "real"])
def test_schemas_are_schemas(name: str, request: pytest.FixtureRequest) -> None:
    for content in all_schemas(request.getfixturevalue(name)).values():
        jsonschema.Draft202012Validator.check_schema(content)


def test_what_is_deprecated_says_so_everywhere(toy: Spec) -> None:
    request = schema(toy, "request", "class.import")
    assert request["deprecated"] is True
    assert request["properties"]["type"]["deprecated"] is True
    assert request["properties"]["type"]["description"] == "A flag. Deprecated: Since 2.0."
    assert "deprecated" not in request["properties"]["ratio"]
    for target, note in (("docs", "**Deprecated:** Since 2.0"), ("asyncapi", "Deprecated: Since 2.0")):
        assert note in "\n".join(render(toy, load_target(BUILT_IN / target)).values())


@pytest.mark.parametrize("name", ["toy", "real"])
def test_vectors_satisfy_the_schemas(name: str, request: pytest.FixtureRequest) -> None:
    spec: Spec = request.getfixturevalue(name)
    checked = 0
    for vector in spec.vectors:
        if vector.request and "json" in vector.request:
            jsonschema.validate(vector.request["json"], schema(spec, "request", vector.operation))
            checked += 1
        if vector.odd:
            continue  # most of these are about replies that a broker should not send
        if vector.is_ok and vector.reply and vector.id not in ODD_REPLIES:
            jsonschema.validate(vector.reply["json"], schema(spec, "reply", vector.operation))
            checked += 1
        if vector.error and vector.error["kind"] == "server" and vector.reply and "json" in vector.reply:
            jsonschema.validate(vector.reply["json"], schema(spec, "error"))
            checked += 1
    assert checked >= 2


ODD_REPLIES = {"fetch-plain-text-payloads"}
"""Vectors about replies that a broker should not send."""


@pytest.mark.parametrize(
    ("operation", "body", "valid"),
    [
        ("msg.fetch", {}, True),
        ("msg.fetch", {"group_name": "", "config": None}, True),
        ("msg.fetch", {"config": {"num_msgs": 1000}}, True),
        ("msg.fetch", {"config": {"num_msgs": 1001}}, False),
        ("msg.fetch", {"deliver": "from_id"}, False),
        ("msg.fetch", {"deliver": "from_id", "from_id": 3}, True),
        ("msg.fetch", {"config": {"lease_ms": 5}}, False),
        ("msg.fetch", {"config": {"lease_ms": 5}, "group_name": "g"}, True),
        ("msg.fetch", {"group_name": "a\nb"}, False),
        ("msg.fetch", {"unknown": 1}, True),
        ("msg.ack", {"group_name": "g"}, False),
        ("msg.ack", {"group_name": "g", "msg_ids": []}, False),
        ("msg.ack", {"msg_id": 1}, False),
        ("mailbox.create", {"name": "a.b"}, True),
        ("mailbox.create", {"name": "a..b"}, False),
        ("mailbox.create", {"name": "A"}, False),
        ("mailbox.create", {"name": ""}, True),
        ("mailbox.create", {"name": None}, True),
        ("mailbox.create", {"ttl": 4294967296}, False),
        ("mailbox.create", {"ttl": "5"}, False),
        ("msg.nack", {"group_name": "g", "msg_ids": []}, False),
        ("msg.nack", {"group_name": "g", "msg_ids": [-1]}, False),
    ],
)
def test_request_schemas_refuse_what_the_protocol_refuses(
    real: Spec, operation: str, body: Any, valid: bool
) -> None:
    validator = jsonschema.Draft202012Validator(schema(real, "request", operation))
    assert validator.is_valid(body) is valid


def test_replies_are_open(real: Spec) -> None:
    reply = {"error": "", "messages": [{"msg_id": 0, "priority": "never heard of", "more": {}}], "new": 1}
    jsonschema.validate(reply, schema(real, "reply", "msg.fetch"))


# AsyncAPI


def asyncapi_of(spec: Spec) -> Any:
    return yaml.safe_load(render(spec, load_target(BUILT_IN / "asyncapi"))["asyncapi.yaml"])


@pytest.fixture(scope="session")
def asyncapi_validator() -> Any:
    content = json.loads((HERE / "data" / "asyncapi" / "asyncapi-3.0.0.schema.json").read_text("utf-8"))
    return jsonschema.Draft7Validator(content)


@pytest.mark.parametrize("name", ["toy", "real"])
def test_the_asyncapi_document_is_valid(
    name: str, asyncapi_validator: Any, request: pytest.FixtureRequest
) -> None:
    document = asyncapi_of(request.getfixturevalue(name))
    assert [error.message for error in asyncapi_validator.iter_errors(document)] == []


def test_the_asyncapi_schema_finds_mistakes(real: Spec, asyncapi_validator: Any) -> None:
    for path, value in (
        (("operations", "fetch", "action"), "get"),
        (("operations", "fetch", "channel"), "fetch"),
        (("channels", "fetch", "address"), 5),
        (("info", "version"), None),
        (("components", "messages", "fetchReply", "payload"), 3),
        (("components", "schemas", "message", "properties"), []),
    ):
        document = asyncapi_of(real)
        holder = document
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = value
        assert list(asyncapi_validator.iter_errors(document)), f"{path} is not checked"


@pytest.mark.parametrize("name", ["toy", "real"])
def test_every_reference_of_the_asyncapi_document_leads_somewhere(
    name: str, request: pytest.FixtureRequest
) -> None:
    document = asyncapi_of(request.getfixturevalue(name))
    spec: Spec = request.getfixturevalue(name)
    references = re.findall(r"\"\$ref\": \"#/([^\"]+)\"", json.dumps(document))
    assert len(references) > 4 * len(spec.operations)
    for reference in references:
        here = document
        for part in reference.split("/"):
            here = here[part]
    assert len(document["operations"]) == len(spec.operations)


# Reference pages


@pytest.mark.parametrize("name", ["toy", "real"])
def test_links_of_the_reference_pages_lead_somewhere(name: str, request: pytest.FixtureRequest) -> None:
    spec: Spec = request.getfixturevalue(name)
    pages = render(spec, load_target(BUILT_IN / "docs"))
    schemas = render(spec, load_target(BUILT_IN / "json-schema"))
    anchors = {
        page: {
            re.sub(r"[^a-z0-9_ -]", "", title.lower()).strip().replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text, re.M)
        }
        | set(re.findall(r'<a id="([^"]+)">', text))
        for page, text in pages.items()
    }
    links = 0
    for page, text in pages.items():
        for link in re.findall(
            r"(?<!\\)\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
        ):
            links += 1
            path, _, anchor = link.partition("#")
            if path.startswith("../schemas/"):
                assert path.removeprefix("../schemas/") in schemas, f"{page}: {link}"
            elif not path.startswith("../"):
                assert path in pages, f"{page}: {link}"
                assert not anchor or anchor in anchors[path], f"{page}: {link}"
    assert links > 20


def test_prose_survives_the_reference_pages(toy: Spec) -> None:
    pages = render(toy, load_target(BUILT_IN / "docs"))
    text = pages["class.import.md"]
    assert "and &lt;T&gt; and {@link x} and %s" in text
    assert "a lone \\` backtick" in text
    assert '`class<T>` \\*/ "now"' in text
    rows = [line for line in text.split("\n") if line.startswith("| `")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (5, 7) for row in rows)


def test_a_requirement_with_a_bar_stays_one_row(toy: Spec) -> None:
    text = render(toy, load_target(BUILT_IN / "docs"))["requirements.md"]
    assert "漢字 \\| a \\| b." in text


def test_a_spec_that_does_not_load_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        read_spec(tmp_path)
