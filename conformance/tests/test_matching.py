import pytest

from mq9_conformance.matching import ABSENT, match
from mq9_conformance.values import Variables


def problems(expected, actual, **bound):
    return match(expected, actual, Variables("s.", dict(bound)))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1, 1),
        ({"a": 1}, {"a": 1, "b": 2}),
        ([1, {"a": 1}], [1, {"a": 1, "b": 2}]),
        ("$any", 0),
        ({"a": "$absent"}, {"b": 1}),
        ("$integer", 5),
        ("$number", 5.5),
        ("$string", ""),
        ("$boolean", False),
        ({"$regex": "^a.c$"}, "a\nc"),
        ({"$gt": 1}, 2),
        ({"$between": [1, 3]}, 3),
        ({"$exactly": {"a": 1}}, {"a": 1}),
        ({"$contains": [2, 1]}, [1, 2, 3]),
        ({"$contains": "ell"}, "hello"),
        ({"$unordered": [2, 1]}, [1, 2]),
        ({"$length": 2}, [1, 2]),
        ({"$length": {"$gte": 1}}, "ab"),
        ({"$not": 1}, 2),
        ({"$one_of": [1, 2]}, 2),
        ({"$all": ["$integer", {"$gt": 0}]}, 1),
        ("text", b"text"),
        ({"base64": "AP8="}, b"\x00\xff"),
        ({"json": {"a": 1}}, b'{"a": 1, "b": 2}'),
        ({"repeat": "x", "size": 3}, b"xxx"),
    ],
)
def test_matches(expected, actual):
    assert problems(expected, actual) == []


@pytest.mark.parametrize(
    ("expected", "actual", "place"),
    [
        (1, True, "result"),
        (True, 1, "result"),
        (1, "1", "result"),
        (0, False, "result"),
        ({"a": 1}, {"b": 1}, "a"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "a.b[1]"),
        ([1], [1, 2], "result"),
        ([1, 2], [1], "result"),
        ({}, [], "result"),
        ("$any", None, "result"),
        ({"a": "$any"}, {}, "a"),
        ({"a": "$absent"}, {"a": None}, "a"),
        ("$integer", True, "result"),
        ("$integer", 1.0, "result"),
        ({"$regex": "^b"}, "abc", "result"),
        ({"$gt": 1}, 1, "result"),
        ({"$gt": 0}, True, "result"),
        ({"$exactly": {"a": 1}}, {"a": 1, "b": 2}, ".b"),
        ({"$contains": [1, 1]}, [1, 2], "result"),
        ({"$unordered": [1]}, [1, 1], ""),
        ({"$not": 1}, 1, "result"),
        ({"$one_of": [1, 2]}, 3, "result"),
        ({"$all": ["$integer", {"$gt": 5}]}, 1, "result"),
        ("text", b"Text", "result"),
        ({"json": {"a": 1}}, b"no json", "result"),
        (5, b"5", "result"),
    ],
)
def test_differences_name_their_place(expected, actual, place):
    found = problems(expected, actual)
    assert found
    assert place in found[0]


def test_a_variable_binds_once_and_then_compares():
    variables = Variables("s.")
    assert match([{"id": "$id"}, {"id": "$id"}], [{"id": 7}, {"id": 7}], variables) == []
    assert variables.get("id") == 7
    assert match("$id", 8, variables)


def test_nothing_can_not_be_bound():
    assert match({"a": "$x"}, {}, Variables("s."))


def test_a_choice_that_does_not_match_binds_nothing():
    variables = Variables("s.")
    assert (
        match(
            {"$contains": [{"id": "$id", "name": "b"}]},
            [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            variables,
        )
        == []
    )
    assert variables.get("id") == 2


def test_numbers_of_63_bits_are_compared_exactly():
    assert problems(9007199254740993, 9007199254740992)
    assert not problems({"$add": [9007199254740992, 1]}, 9007199254740993)


def test_absent_is_shown_as_nothing():
    assert problems(1, ABSENT) == ["result: expected 1, got nothing"]
