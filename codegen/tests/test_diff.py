"""Every change between two versions is found and classified."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mq9_codegen.cli import main
from mq9_codegen.diff import compare
from mq9_codegen.load import load

TOY = Path(__file__).parent / "toyspec"
IMPORT, YIELD = "operations/class.import.yaml", "operations/yield.lambda.yaml"


def change(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    content = path.read_text("utf-8")
    assert old in content
    path.write_text(content.replace(old, new, 1), "utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "kind", "path"),
    [
        (IMPORT, "max: 100", "max: 1000", "additive", "parameters.x.max"),
        (IMPORT, "max: 100", "max: 10", "breaking", "parameters.x.max"),
        (IMPORT, "min: 1,", "min: 0,", "additive", "parameters.x.min"),
        (IMPORT, "min: 1,", "min: 2,", "breaking", "parameters.x.min"),
        (IMPORT, "min: 1, max: 100", "min: 1", "additive", "parameters.x.max"),
        (IMPORT, "default: 7,", "default: 8,", "breaking", "parameters.x.default"),
        (IMPORT, "default: 7,", "", "breaking", "parameters.x.default"),
        (IMPORT, "ratio: {type: signed", "ratio: {type: id", "breaking", "parameters.ratio.type"),
        (
            IMPORT,
            "  card: {",
            "  more: {type: id, in: body, optional: true, doc: X.}\n  card: {",
            "additive",
            "parameters.more",
        ),
        (
            IMPORT,
            "  card: {",
            "  more: {type: id, in: body, doc: X.}\n  card: {",
            "breaking",
            "parameters.more",
        ),
        (
            IMPORT,
            "  ratio: {type: signed, in: body, optional: true, doc: A ratio.}\n",
            "",
            "breaking",
            "parameters.ratio",
        ),
        (IMPORT, "doc: A ratio.", "doc: The ratio.", "docs", "parameters.ratio.doc"),
        (IMPORT, "method: import", "method: bring", "breaking", "method"),
        (IMPORT, "retry: dedup", "retry: always", "breaking", "retry"),
        (IMPORT, "$toy.CLASS.IMPORT", "$toy.CLASS.BRING", "breaking", "subject"),
        (
            IMPORT,
            "errors: [not_found, invalid_argument, x]",
            "errors: [not_found, invalid_argument]",
            "additive",
            "errors#x",
        ),
        (IMPORT, "  - {when: {match: x}, require: self}\n", "", "additive", "rules#"),
        (IMPORT, "rules:\n", "rules:\n  - {when: {match: none}, require: ratio}\n", "breaking", "rules#"),
        (IMPORT, "level: MUST", "level: SHOULD", "breaking", "requirements.IMPORT-001.level"),
        (IMPORT, "Text with", "Prose with", "docs", "requirements.IMPORT-001.text"),
        (IMPORT, "call: {class: a, id: 1}", "call: {class: a, id: 2}", "docs", "vectors#x.call.id"),
        (IMPORT, 'deprecated: "Since 2.0 */', 'deprecated: "Since 2.1 */', "additive", "deprecated"),
        (
            YIELD,
            '  id: {type: signed, doc: "A number."}',
            '  id: {type: signed, doc: "A number."}\n  n: {type: id, doc: N.}',
            "additive",
            "reply.n",
        ),
        (YIELD, "type: signed, doc", "type: id, doc", "breaking", "reply.id.type"),
        (YIELD, "level: SHOULD", "level: MUST", "additive", "requirements.YIELD-001.level"),
        (YIELD, "positional: 2, ", "", "breaking", "parameters.blob.positional"),
        (
            "types.yaml",
            '      x: {doc: "One letter, and',
            '      y: {doc: Y.}\n      x: {doc: "One letter, and',
            "additive",
            "enums.match.values.y",
        ),
        ("types.yaml", '      class: {doc: "`class`."}\n', "", "breaking", "enums.match.values.class"),
        ("types.yaml", "max_length: 20", "max_length: 30", "additive", "scalars.class.max_length"),
        ("types.yaml", "unit: seconds, min", "unit: milliseconds, min", "breaking", "scalars.seconds.unit"),
        (
            "types.yaml",
            "required: false, odd: absent, doc: Headers.",
            "odd: absent, doc: Headers.",
            "additive",
            "objects.object.fields.h.required",
        ),
        ("types.yaml", "odd: drop, ", "", "breaking", "objects.object.fields.id.odd"),
        ("errors.yaml", "text: x,", "text: y,", "breaking", "codes.x.text"),
        ("errors.yaml", "  x: {text", "  y: {text: y, doc: Y.}\n  x: {text", "additive", "codes.y"),
        ("limits.yaml", "value: 7", "value: 8", "additive", "max_x.value"),
        ("limits.yaml", "value: 7", "value: 6", "breaking", "max_x.value"),
        ("client.yaml", "timeout_ms: 5000", "timeout_ms: 6000", "breaking", "request.timeout_ms"),
        (
            "client.yaml",
            "  renew_divisor",
            "    more: {type: id, optional: true, doc: X.}\n  renew_divisor",
            "additive",
            "consume.parameters.more",
        ),
        (
            "headers.yaml",
            'encoding: text, consumed: true, doc: "*/',
            'encoding: text, consumed: false, doc: "*/',
            "breaking",
            "sent.toy-def.consumed",
        ),
        (
            "mq9.yaml",
            "retries_on: [timeout, unavailable]",
            "retries_on: [timeout]",
            "breaking",
            "retry_classes.always.retries_on#unavailable",
        ),
        (
            "mq9.yaml",
            "check_order: [operation, body]",
            "check_order: [body, operation]",
            "breaking",
            "check_order",
        ),
        ("mq9.yaml", "licence: Apache-2.0", "licence: Apache-2.0\nchecks: [operations]", "docs", "checks"),
        ("mq9.yaml", 'title: "Toy', 'title: "The toy', "docs", "title"),
    ],
)
def test_a_change_is_found_and_classified(
    toy_copy: Path, file: str, old: str, new: str, kind: str, path: str
) -> None:
    change(toy_copy, file, old, new)
    problems: list[object] = []
    changes = compare(load(TOY, problems), load(toy_copy, problems))  # type: ignore[arg-type]
    assert not problems
    found = {(one.path, one.kind) for one in changes}
    assert any(where.startswith(path) and what == kind for where, what in found), found
    assert len(changes) == 1
    assert str(changes[0]).startswith(kind)


@pytest.mark.parametrize(
    "name", ["text", "doc", "max", "summary", "deprecated", "version", "default", "optional"]
)
def test_a_parameter_may_be_called_like_a_key(toy_copy: Path, name: str) -> None:
    """What stands below `parameters` is a name, whatever it is called."""
    line = f"  {name}: {{type: id, in: body, optional: true, doc: X.}}\n"
    change(toy_copy, IMPORT, "  ratio: {", line + "  ratio: {")
    problems: list[object] = []
    old, new = load(TOY, problems), load(toy_copy, problems)  # type: ignore[arg-type]
    assert not problems
    assert [one.kind for one in compare(old, new)] == ["additive"]
    assert [one.kind for one in compare(new, old)] == ["breaking"]


def test_moving_things_changes_nothing(toy_copy: Path) -> None:
    change(
        toy_copy,
        IMPORT,
        "errors: [not_found, invalid_argument, x]",
        "errors: [x, not_found, invalid_argument]",
    )
    problems: list[object] = []
    assert compare(load(TOY, problems), load(toy_copy, problems)) == []  # type: ignore[arg-type]


def test_an_operation_that_comes_or_goes(toy_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (toy_copy / "operations/type.x.yaml").unlink()
    assert main(["diff", str(TOY), str(toy_copy)]) == 1
    assert "breaking" in capsys.readouterr().out
    assert main(["diff", str(toy_copy), str(TOY)]) == 1
    output = capsys.readouterr().out
    assert "additive" in output
    assert "an additive change needs a new minor version, at least 2.4" in output


@pytest.mark.parametrize(
    ("version", "edit", "code", "message"),
    [
        ("2.3", ("max: 100", "max: 10"), 1, "needs a new major version, at least 3.0"),
        ("2.4", ("max: 100", "max: 10"), 1, "needs a new major version, at least 3.0"),
        ("3.0", ("max: 100", "max: 10"), 0, "1 breaking"),
        ("2.3", ("max: 100", "max: 200"), 1, "needs a new minor version, at least 2.4"),
        ("2.4", ("max: 100", "max: 200"), 0, "1 additive"),
        ("2.3", ("doc: A ratio.", "doc: The ratio."), 0, "0 breaking, 0 additive, 1 docs"),
        ("2.3", ("doc: A ratio.", "doc: A ratio."), 0, "0 breaking, 0 additive, 0 docs"),
    ],
)
def test_the_version_number_has_to_allow_it(
    toy_copy: Path,
    capsys: pytest.CaptureFixture[str],
    version: str,
    edit: tuple[str, str],
    code: int,
    message: str,
) -> None:
    change(toy_copy, IMPORT, *edit)
    change(toy_copy, "mq9.yaml", 'version: "2.3"', f'version: "{version}"')
    assert main(["diff", str(TOY), str(toy_copy)]) == code
    assert message in capsys.readouterr().out


def test_an_older_number_is_refused(toy_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(toy_copy, "operations/type.x.yaml", 'since: "2.3"', 'since: "2.2"')
    change(toy_copy, "mq9.yaml", 'version: "2.3"', 'version: "2.2"')
    assert main(["diff", str(TOY), str(toy_copy)]) == 1
    assert "the smaller number" in capsys.readouterr().out


def test_against_released_takes_the_newest(toy_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "--against", "released", "--spec", str(toy_copy)]) == 0
    assert "nothing is released yet" in capsys.readouterr().out
    for version in ("2.3", "2.10", "2.9"):
        shutil.copytree(TOY, toy_copy / "released" / version)
        change(toy_copy / "released" / version, "mq9.yaml", 'version: "2.3"', f'version: "{version}"')
    change(toy_copy, "mq9.yaml", 'version: "2.3"', 'version: "2.10"')
    change(toy_copy, IMPORT, "max: 100", "max: 10")
    assert main(["diff", "--against", "released", "--spec", str(toy_copy)]) == 1
    assert "2.10 -> 2.10: 1 breaking, 0 additive, 0 docs" in capsys.readouterr().out


def test_diff_needs_something_to_compare_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff"]) == 2
    assert "OLD NEW or --against released" in capsys.readouterr().err
