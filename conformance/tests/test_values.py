import pytest

from mq9_conformance.values import (
    ScenarioError,
    Variables,
    milliseconds,
    payload_bytes,
    variables_in,
)


@pytest.fixture
def variables():
    return Variables("s1.", {"n": 5, "text": "hello"})


def test_a_whole_variable_keeps_its_type_and_one_inside_text_does_not(variables):
    assert variables.resolve("$n") == 5
    assert variables.resolve("a $n b") == "a 5 b"
    assert variables.resolve({"x": ["$text", {"$n": 1}]}) == {"x": ["hello", {"5": 1}]}


def test_boxes_agents_and_words_are_unique_to_the_run_and_stay_the_same_in_it(variables):
    box = variables.resolve("$box")
    assert box.startswith("s1.")
    assert variables.resolve("$box") == box
    assert variables.resolve("$box_dead") != box
    assert Variables("s2.").resolve("$box") != box


def test_mq9_and_doubled_dollars_are_text(variables):
    assert variables.resolve("$mq9.AI.MSG.SEND.$box") == f"$mq9.AI.MSG.SEND.{variables.resolve('$box')}"
    assert variables.resolve("$$n costs $5") == "$n costs $5"
    assert variables.resolve("${n}x") == "5x"


def test_an_unbound_variable_is_a_mistake_of_the_scenario(variables):
    with pytest.raises(ScenarioError, match=r"\$later is used before"):
        variables.resolve("$later")


def test_generators(variables):
    assert variables.resolve({"$add": ["$n", 2]}) == 7
    assert variables.resolve({"$length": 3, "of": "ab"}) == "ababab"
    assert variables.resolve({"$range": [1, 4]}) == [1, 2, 3]
    assert variables.resolve({"$json_text": {"a": "$n"}}) == '{"a":5}'


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("text", b"text"),
        (None, b""),
        ({"text": "ü"}, "ü".encode()),
        ({"base64": "AP8="}, b"\x00\xff"),
        ({"hex": "00ff"}, b"\x00\xff"),
        ({"json": {"a": 1}}, b'{"a":1}'),
        ({"repeat": "ab", "size": 5}, b"ababa"),
        ({"parts": [{"text": "a"}, {"hex": "0a"}]}, b"a\n"),
    ],
)
def test_payload_forms(form, expected):
    assert payload_bytes(form) == expected


def test_a_payload_of_no_known_form_is_refused():
    with pytest.raises(ScenarioError, match="is no payload"):
        payload_bytes(["a"])


def test_matchers_are_no_variables():
    assert variables_in(["$any", {"$regex": "^x$"}, "$x and $y", {"$z": 1}, "$mq9.AI"]) == {"x", "y", "z"}


@pytest.mark.parametrize(
    ("text", "expected"), [("+11s", 11_000), ("50ms", 50), ("2h", 7_200_000), ("+1d", 86_400_000)]
)
def test_durations(text, expected):
    assert milliseconds(text) == expected


def test_a_bad_duration_is_named():
    with pytest.raises(ScenarioError, match="'11' is no duration"):
        milliseconds("11")
