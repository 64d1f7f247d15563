"""Wire vectors in files of their own, and the short forms of long values."""

from __future__ import annotations

from pathlib import Path

import pytest

from mq9_codegen.commands import read_spec
from mq9_codegen.problems import Problem, SpecError
from mq9_codegen.source import parse_document
from mq9_codegen.vectors import expand_vectors

MORE = """\
# More vectors.
operation: yield.lambda
vectors:
  - id: one-more
    covers: [{covers}]
    call: {{}}
    result: {{error: {{kind: nonsense}}}}
"""


def expanded(value: str) -> tuple[object, list[Problem]]:
    problems: list[Problem] = []
    text = f"operation: a.b\nvectors:\n  - id: x\n    call: {{p: {value}}}\n"
    document = parse_document(text.encode(), "a.b.yaml", problems)
    assert document is not None
    expand_vectors(document, problems)
    return document.data["vectors"][0]["call"]["p"], problems


@pytest.mark.parametrize(
    ("short", "written_out"),
    [
        ("{$repeat: ab, times: 3}", "ababab"),
        ("{$repeat: ab, times: 0}", ""),
        ("{$join: [a, {$repeat: b, times: 2}, c]}", "abbc"),
        ("{$range: [1, 4]}", [1, 2, 3]),
        ('{$each: [1, 3], text: "t{}-{}"}', ["t1-1", "t2-2"]),
        ("{$nest: 1}", []),
        ("{$nest: 3}", [[[]]]),
        ("[{a: {$range: [0, 2]}}, 5]", [{"a": [0, 1]}, 5]),
        ("{a: $repeat}", {"a": "$repeat"}),
    ],
)
def test_short_forms_are_written_out(short: str, written_out: object) -> None:
    assert expanded(short) == (written_out, [])


@pytest.mark.parametrize(
    ("short", "message"),
    [
        ("{$repeat: 5, times: 3}", "a.b.yaml:4: 5 does not suit $repeat; expected {$repeat: ab, times: 128}"),
        ("{$repeat: a}", "a.b.yaml:4: 'a' does not suit $repeat; expected {$repeat: ab, times: 128}"),
        (
            "{$repeat: a, times: -1}",
            "a.b.yaml:4: 'a' does not suit $repeat; expected {$repeat: ab, times: 128}",
        ),
        ("{$range: [0]}", "a.b.yaml:4: a list does not suit $range; expected {$range: [0, 1000]}"),
        (
            "{$range: [0, 2], more: 1}",
            "a.b.yaml:4: a list does not suit $range; expected {$range: [0, 1000]}",
        ),
        (
            "{$join: [a, 5]}",
            "a.b.yaml:4: a list does not suit $join; expected {$join: [a, b]}, all of them texts",
        ),
        ("{$repaet: a, times: 3}", "a.b.yaml:4: unknown short form '$repaet' (did you mean '$repeat'?)"),
    ],
)
def test_mistakes_in_short_forms_name_the_line(short: str, message: str) -> None:
    _, problems = expanded(short)
    assert next(str(problem) for problem in problems).startswith(message)


def test_vectors_of_another_file_join_the_operation(real_folder: Path) -> None:
    spec = read_spec(real_folder)
    ids = [vector.id for vector in spec.operation("msg.send").vectors]
    assert ids.index("send-plain") < ids.index("send-bytes-not-utf8")
    vectors = {vector.id: vector for vector in spec.vectors}
    assert vectors["send-timeout"].attempts == 1
    assert vectors["send-plain"].attempts is None
    assert len(vectors["ack-1001-ids"].call["msg_ids"]) == 1001


@pytest.fixture
def real_folder() -> Path:
    return Path(__file__).parents[2] / "spec"


def problems_of(folder: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read_spec(folder)
    return [str(problem) for problem in caught.value.problems]


def test_mistakes_in_them_name_their_own_file(toy_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy_copy)
    (toy_copy / "vectors").mkdir(exist_ok=True)
    file = toy_copy / "vectors" / "yield.lambda.yaml"
    file.write_text(MORE.format(covers="NO-999"), "utf-8")
    found = problems_of(Path())
    assert any(p.startswith("vectors/yield.lambda.yaml:5: unknown requirement 'NO-999'") for p in found), (
        found
    )
    assert any(p.startswith("vectors/yield.lambda.yaml:7: unknown kind of failure 'nonsense'") for p in found)


def test_the_file_has_the_name_of_a_known_operation(toy_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy_copy)
    (toy_copy / "vectors").mkdir(exist_ok=True)
    text = MORE.format(covers="NO-999")
    (toy_copy / "vectors" / "other.yaml").write_text(text, "utf-8")
    assert "vectors/other.yaml:2: is 'yield.lambda'; expected the file name yield.lambda.yaml" in problems_of(
        Path()
    )
    (toy_copy / "vectors" / "other.yaml").write_text(text.replace("yield.lambda", "yeild.lambda"), "utf-8")
    assert problems_of(Path())[0].startswith(
        "vectors/other.yaml:2: unknown operation 'yeild.lambda' (did you mean 'yield.lambda'?)"
    )
