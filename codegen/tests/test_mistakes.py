"""Every kind of mistake in a specification gives a message with file and line, and says what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mq9_codegen.commands import read_spec
from mq9_codegen.problems import SpecError

Mistakes = Callable[..., list[str]]
IMPORT, YIELD = "operations/class.import.yaml", "operations/yield.lambda.yaml"


def line_of(text: str, path: Path) -> int:
    return next(n for n, line in enumerate(path.read_text("utf-8").split("\n"), 1) if text in line)


@pytest.mark.parametrize(
    ("file", "old", "new", "at", "message"),
    [
        # The shape of files: YAML and JSON Schema.
        (
            IMPORT,
            "effect: write",
            "effect: writes",
            "effect:",
            "'effect' is 'writes'; expected one of read, write",
        ),
        (IMPORT, "effect: write", "efect: write", "efect:", "unknown key 'efect' (did you mean 'effect'?)"),
        (
            IMPORT,
            "effect: write",
            "effect: write\neffect: read",
            "effect: read",
            "key 'effect' appears twice (first in line 17)",
        ),
        (IMPORT, "retry: dedup\n", "", "operation:", "has no 'retry'; expected the key 'retry'"),
        (IMPORT, "retry: dedup\n", "retry: [\n", "", "is not YAML"),
        (IMPORT, "max: 100", 'max: "100"', "x: {type: id", "'max' is '100'; expected a whole number"),
        (IMPORT, "max: 100", "max: 0x10", "x: {type: id", "'0x10' is read differently by YAML readers"),
        (IMPORT, "optional: true", "optional: yes", "self: {", "'yes' is read differently by YAML readers"),
        (
            IMPORT,
            "retry: dedup",
            "retry: &a dedup\ntimeout_add: *a",
            "timeout_add",
            "is used again by an alias",
        ),
        (IMPORT, 'since: "1.0"', "since: 1.0", "since", "'since' is 1.0; expected text"),
        (IMPORT, 'since: "1.0"', 'since: "1"', "since", "expected MAJOR.MINOR in quotes"),
        (
            IMPORT,
            "IMPORT-001:",
            "import-1:",
            "import-1",
            "key 'import-1' is not well formed; expected a requirement id such as SEND-003",
        ),
        (
            IMPORT,
            "x: {type: id",
            "X-y: {type: id",
            "X-y",
            "key 'X-y' is not well formed; expected a name in snake_case",
        ),
        (
            IMPORT,
            "$toy.CLASS.IMPORT.{class}",
            "$toy.CLASS.IM PORT.{class}",
            "subject:",
            "expected subject tokens with dots",
        ),
        (
            IMPORT,
            "- {when: {match: x}, require: self}",
            "- {when: {match: x}}",
            "when: {match",
            "expected `when` or `when_present`",
        ),
        # References.
        (IMPORT, "type: signed", "type: sined", "ratio: {", "unknown type 'sined' (did you mean 'signed'?)"),
        (
            IMPORT,
            "list<tag>",
            "list<tagg>",
            "abcdefghij_abcde: {",
            "unknown type 'tagg' (did you mean 'tag'?)",
        ),
        (IMPORT, "list<tag>", "list<tag", "abcdefghij_abcde: {", "'list<tag' is not a type"),
        (
            IMPORT,
            "retry: dedup",
            "retry: dedupe",
            "retry:",
            "unknown retry class 'dedupe' (did you mean 'dedup'?)",
        ),
        (IMPORT, "errors: [not_found", "errors: [not_fund", "errors:", "unknown error code 'not_fund'"),
        (IMPORT, "max_body: max_x", "max_body: max_y", "max_body", "unknown limit 'max_y'"),
        (IMPORT, "timeout_adds: await", "timeout_adds: wait", "timeout_adds", "unknown parameter 'wait'"),
        (
            IMPORT,
            "timeout_adds: await",
            "timeout_adds: ratio",
            "timeout_adds",
            "'ratio' is not in milliseconds",
        ),
        (IMPORT, "partition: class", "partition: clas", "partition", "unknown partition 'clas'"),
        (
            IMPORT,
            "IMPORT.{class}.{id}",
            "IMPORT.{class}",
            "  id: {",
            "'id' is not in the subject; expected {id} in the subject",
        ),
        (IMPORT, "IMPORT.{class}.{id}", "IMPORT.{class}.{id}.{ix}", "subject:", "unknown parameter 'ix'"),
        (
            IMPORT,
            "$toy.CLASS",
            "$tox.CLASS",
            "subject:",
            "is outside the protocol; expected a subject below $toy.",
        ),
        (IMPORT, "when_present: await", "when_present: wait", "when_present", "unknown parameter 'wait'"),
        (IMPORT, "when: {match: x}", "when: {match: z}", "when: {match", "unknown value of match 'z'"),
        (IMPORT, '{class: "{class}"}', '{class: "{clas}"}', "body_constants", "unknown parameter 'clas'"),
        (IMPORT, "covers: [SDK-001", "covers: [SDK-009", "covers:", "unknown requirement 'SDK-009'"),
        (YIELD, "result: id", "result: idd", "result:", "unknown field of the reply 'idd'"),
        (YIELD, "header: toy-def", "header: toy-defg", "  def: {", "unknown header 'toy-defg'"),
        (
            "errors.yaml",
            "code: not_found",
            "code: not_there",
            "code: not_there",
            "unknown error code 'not_there'",
        ),
        (
            "mq9.yaml",
            "retries_on: [timeout, un",
            "retries_on: [timeouts, un",
            "always:",
            "unknown kind or code of failure 'timeouts'",
        ),
        ("mq9.yaml", "needs: def", "needs: deff", "", "needs a parameter 'deff'"),
        (
            "types.yaml",
            "default: none\n",
            "default: nine\n",
            "default: nine",
            "unknown value of match 'nine'",
        ),
        ("types.yaml", "error: invalid_argument", "error: invalit", "class:", "unknown error code 'invalit'"),
        ("types.yaml", "encoding_field: global", "encoding_field: globe", "from:", "unknown field 'globe'"),
        ("types.yaml", "requires: self", "requires: selves", "", "requires a parameter 'selves'"),
        (
            "headers.yaml",
            "parameter: in,",
            "parameter: inn,",
            "toy-in",
            "no operation has a parameter 'inn' with header toy-in",
        ),
        (
            "client.yaml",
            "positional: [class, x]",
            "positional: [class, y]",
            "positional",
            "unknown parameter 'y'",
        ),
        # Bounds and defaults.
        (
            IMPORT,
            "default: 7, min: 1",
            "default: 0, min: 1",
            "x: {type: id",
            "default 0 is out of bounds; expected min 1",
        ),
        (
            IMPORT,
            "default: 7,",
            "default: 700,",
            "x: {type: id",
            "default 700 is out of bounds; expected max 100",
        ),
        (
            IMPORT,
            "default: 7,",
            'default: "7",',
            "x: {type: id",
            "'7' is not a value of type id; expected a whole number",
        ),
        (
            IMPORT,
            "default: 7,",
            "default: true,",
            "x: {type: id",
            "true is not a value of type id; expected a whole number",
        ),
        (IMPORT, "min: 1, max: 100", "min: 100, max: 1", "x: {type: id", "'min' 100 is above 'max' 1"),
        (IMPORT, "min: 1, max: 100", "min: -1, max: 100", "x: {type: id", "'min' -1 is wider than 0 of id"),
        (
            IMPORT,
            "min: 1, max: 100",
            "min_length: 1",
            "x: {type: id",
            "'min_length' does not suit the type id; expected string",
        ),
        (IMPORT, "default: none", "default: nope", "match: {type", "unknown value of match 'nope'"),
        (
            IMPORT,
            "optional: true, default: 7",
            "default: 7",
            "x: {type: id",
            "'x' has a default, but must be given",
        ),
        (
            "types.yaml",
            "default: none, odd",
            "default: nun, odd",
            "x: {type: match",
            "unknown value of match 'nun'",
        ),
        ("types.yaml", "max_length: 20", "max: 20", "class:", "'max' does not suit the base string"),
        ("types.yaml", "chars: a-z0-9.", "chars: z-a", "class:", "'z-a' is no set of characters"),
        (
            "client.yaml",
            "default: 10, min: 1",
            "default: 0, min: 1",
            "abcde: {type: id",
            "default 0 is out of bounds",
        ),
        # Duplicates and names.
        (
            YIELD,
            "method: abcdefghij_abcdefghij_abcdefghij_abcdefghij_abcdefghij_abcde",
            "method: x",
            "method:",
            "method 'x' is there already",
        ),
        (YIELD, "$toy.YIELD.{class}", "$toy.X", "subject:", "subject '$toy.X' is there already"),
        (YIELD, "id: yield-text", "id: x", "id: x", "vector 'x' is there already"),
        (
            YIELD,
            "YIELD-001",
            "IMPORT-001",
            "IMPORT-001",
            "requirement IMPORT-001 is there already, in operations/class.import.yaml:44",
        ),
        (
            YIELD,
            "operation: yield.lambda",
            "operation: yield.other",
            "operation:",
            "stands in a file of another name; expected yield.other.yaml",
        ),
        (YIELD, "positional: 2", "positional: 1", "blob: {", "'blob' has the position of 'class'"),
        (YIELD, "positional: 2", "positional: 3", "blob: {", "position 2 is missing"),
        (IMPORT, "import_result", "object", "result:", "'object' is a type of types.yaml already"),
        (
            IMPORT,
            "path: y.await",
            "path: y.z",
            "x: {type: id",
            "'x' stands at the place of 'await' in the body",
        ),
        (IMPORT, "ratio: {type", "x_: {type", "x_: {", "key 'x_' is not well formed"),
        (
            IMPORT,
            "  ratio: {type",
            "  a_wait: {type: id, in: body, optional: true, doc: X.}\n  ratio: {type",
            "a_wait",
            "'a_wait' and 'await' are the same name in some languages",
        ),
        (
            IMPORT,
            "  ratio: {type",
            f"  {'a' * 61}: {{type: id, in: body, optional: true, doc: X.}}\n  ratio: {{type",
            "aaaaaaaa",
            "has 61 characters; expected at most 60",
        ),
        (YIELD, "of any width.", "of any width", "summary:", "does not end as a sentence"),
        ("types.yaml", "  exception:", "  signed:", "  signed:\n", "'signed' is a type of scalars already"),
        # What travels where.
        (
            YIELD,
            "type: blob, in: payload",
            "type: tag, in: payload",
            "blob: {",
            "type tag can't travel in the payload",
        ),
        (
            YIELD,
            "def: {type: tag, in: header, header: toy-def",
            "def: {type: tag, in: body",
            "blob: {",
            "the body is the payload, so nothing else can be in it",
        ),
        (
            YIELD,
            "in: {type: id, in: header",
            "in: {type: signed, in: header",
            "  in: {",
            "'in' has another type than its header; expected id",
        ),
        (
            "headers.yaml",
            "type: id, encoding: integer",
            "type: id, encoding: text",
            "toy-in",
            "'text' does not suit the type id; expected integer",
        ),
        (
            IMPORT,
            "card: {type: anything",
            "card: {type: text",
            "card: {",
            "'card' is spread, but of type text",
        ),
        # Vectors.
        (
            IMPORT,
            "call: {class: a, id: 1}",
            "call: {clas: a, id: 1}",
            "call: {clas",
            "unknown parameter 'clas' (did you mean 'class'?)",
        ),
        (
            IMPORT,
            "subject: $toy.CLASS.IMPORT.a.b.9007199254740993",
            "subject: $toy.CLASS.IMPORT.a.b.9007199254740992",
            "request:",
            "is not the subject of this call; expected $toy.CLASS.IMPORT.a.b.9007199254740993",
        ),
        (
            IMPORT,
            "result: {error: {kind: invalid_argument",
            "result: {error: {kind: invalid",
            "kind: invalid,",
            "unknown kind of failure 'invalid'",
        ),
        (IMPORT, "field: self, code", "field: selve, code", "field: selve", "unknown parameter 'selve'"),
        (
            YIELD,
            "request: {subject: $toy.YIELD.a, payload: {json: {n: 1}}",
            "request: {subject: $toy.YIELD.a, empty: true",
            "request: {subject: $toy.YIELD.a, empty",
            "is not what the body of yield.lambda is; expected 'payload'",
        ),
        (
            YIELD,
            "    reply: {status: timeout}\n",
            "",
            "id: yield-refused",
            "a request is sent, but nothing says what is answered",
        ),
        (
            YIELD,
            "call: {class: a, blob: {json: {n: 1}}}",
            "call: {class: a}",
            "call: {class: a}",
            "the call leaves out 'blob'",
        ),
        (YIELD, "blob: {json: {n: 1}}}", "blob: {base64: '*'}}", "base64: '*'", "'*' is not base64"),
        (YIELD, "blob: {json: {n: 1}}}", "blob: raw}", "blob: raw", "'raw' is not a payload"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    mistakes: Mistakes, toy_copy: Path, file: str, old: str, new: str, at: str, message: str
) -> None:
    messages = mistakes(file, old, new)
    found = [text for text in messages if message in text]
    assert found, "\n".join(messages) or "no mistake was found"
    changed = (toy_copy / file).read_text("utf-8").replace(old, new, 1)
    lines = [f":{number}:" for number, line in enumerate(changed.split("\n"), 1) if at.strip() in line]
    other = [f":{number}:" for number, _ in enumerate(changed.split("\n"), 1)]
    assert any(mark in found[0] for mark in (lines if at else other)), (
        f"{found[0]} is not in one of the lines {lines}"
    )


VECTORS = "vectors/class.import.yaml"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("operation: class.import", "operation: class.improt", 1, "operation"),
        (
            "$repeat: a, times",
            "$repeat: a, tims",
            5,
            "a' does not suit $repeat; expected {$repeat: ab, times: 128}",
        ),
        ("$repeat: a, times: 19", "$repeat: aa, times: 1000000", 5, "does not suit $repeat"),
        ("$nest: 3", "$nest: 300", 5, "does not suit $nest"),
        ("$each:", "$eech:", 5, "unknown short form '$eech' (did you mean '$each'?)"),
        ("covers: [A-001]", "covers: [A-009]", 4, "unknown requirement 'A-009'"),
        ("code: unavailable}}\n    result", "kode: unavailable}}\n    rezult", 8, "unknown key 'rezult'"),
        ("id: import-short-forms", "id: x", 3, "vector 'x' is there already"),
    ],
)
def test_mistakes_in_the_files_of_vectors(
    mistakes: Mistakes, old: str, new: str, line: int, message: str
) -> None:
    messages = mistakes(VECTORS, old, new)
    assert any(message in text and f"{VECTORS}:{line}:" in text for text in messages), messages


def test_several_mistakes_come_at_once(toy_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy_copy)
    for file, old, new in (
        (IMPORT, "retry: dedup", "retry: never"),
        (YIELD, "result: id", "result: ids"),
        ("headers.yaml", "parameter: in,", "parameter: out,"),
    ):
        path = toy_copy / file
        path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8")
    with pytest.raises(SpecError) as caught:
        read_spec(Path())
    files = {problem.file for problem in caught.value.problems}
    assert files == {IMPORT, YIELD, "headers.yaml"}


def test_a_must_without_a_check_is_a_mistake_of_lint_alone(mistakes: Mistakes) -> None:
    old, new = "covers: [SDK-001, A-001, IMPORT-001]", "covers: [SDK-001, A-001]"
    assert mistakes(IMPORT, old, new) == []
    assert mistakes(IMPORT, old, new, strict=True) == [
        f"{IMPORT}:44: nothing checks IMPORT-001; expected a vector or scenario whose `covers` names it"
    ]


def test_scenarios_cover_requirements_and_may_not_name_unknown_ones(
    toy_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy_copy)
    (toy_copy / "scenarios").mkdir()
    scenario = toy_copy / "scenarios" / "a.yaml"
    scenario.write_text("- scenario: a/b\n  covers: [IMPORT-001, IMPORT-002]\n")
    top = toy_copy / "mq9.yaml"
    top.write_text(top.read_text("utf-8") + "checks: [scenarios]\n", "utf-8")
    with pytest.raises(SpecError) as caught:
        read_spec(Path(), strict=True)
    assert "scenarios/a.yaml:2: unknown requirement 'IMPORT-002'" in str(caught.value)
    scenario.write_text("- scenario: a/b\n  covers: [IMPORT-001, B-001]\n")
    spec = read_spec(Path(), strict=True)
    checks = {requirement.id: requirement.checks for requirement in spec.requirements}
    assert checks["B-001"] == ("a/b",)
    assert checks["IMPORT-001"] == ("vector import-nasty", "a/b")
    scenario.write_text("scenario: a/b\n")
    with pytest.raises(SpecError, match="is not a list of scenarios"):
        read_spec(Path(), strict=True)


@pytest.mark.parametrize("name", ["limits.yaml", "schema/types.schema.json", "operations"])
def test_a_missing_file_is_named(toy_copy: Path, name: str) -> None:
    path = toy_copy / name
    if path.is_dir():
        for child in path.iterdir():
            child.unlink()
    else:
        path.unlink()
    with pytest.raises(SpecError, match=name):
        read_spec(toy_copy)


def test_a_file_that_belongs_nowhere_is_named(toy_copy: Path) -> None:
    (toy_copy / "limit.yaml").write_text("x: 1\n")
    with pytest.raises(
        SpecError, match=r"limit.yaml: is not a file of a specification \(did you mean 'limits.yaml'\?\)"
    ):
        read_spec(toy_copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "1: is not valid UTF-8"),
        (b"", "1: is empty"),
        (b"a: 1\nb: *x\n", "2: is not YAML"),
        (b"a: &x [*x]\n", "is used again by an alias"),
        (b"a: !!python/object:os.system x\n", "has the tag"),
        (b"? [a]\n: 1\n", "has a key that is not text"),
        (b"<<: {a: 1}\n", "uses a merge key"),
        (b"[" * 5000, "is not YAML"),
        (b"a: " + b"[" * 60 + b"]" * 60, "is nested deeper than 40"),
        (b"a: " + b"9" * 50, "is a number of more than 40 digits"),
        (b"a: 1e999", "is too large"),
        (b"--- 1\n--- 2\n", "2: is not YAML"),
        (b"a: \x00", "is not YAML"),
        (b"- 1\n", "is a list; expected a mapping"),
        (b"just text", "is 'just text'; expected a mapping"),
    ],
)
def test_files_that_are_hardly_yaml_are_mistakes_too(toy_copy: Path, content: bytes, message: str) -> None:
    (toy_copy / "limits.yaml").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_spec(toy_copy)
    assert any("limits.yaml:" in str(p) and message in str(p) for p in caught.value.problems), str(
        caught.value
    )
