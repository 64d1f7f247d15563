from __future__ import annotations

import pytest

from mq9_codegen.names import CASINGS, cased, words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mail_address", ("mail", "address")),
        ("mail-address", ("mail", "address")),
        ("msg.fetch", ("msg", "fetch")),
        ("mailAddress", ("mail", "address")),
        ("MailAddress", ("mail", "address")),
        ("HTTPServer", ("http", "server")),
        ("x", ("x",)),
        ("v2_name", ("v2", "name")),
        ("sha256sum", ("sha256", "sum")),
        ("base64", ("base64",)),
        ("__odd__name__", ("odd", "name")),
    ],
)
def test_names_are_split_into_words(name: str, expected: tuple[str, ...]) -> None:
    assert words(name) == expected


@pytest.mark.parametrize(
    ("casing", "expected"),
    [
        ("snake", "msg_id_of_url"),
        ("screaming", "MSG_ID_OF_URL"),
        ("kebab", "msg-id-of-url"),
        ("dot", "msg.id.of.url"),
        ("flat", "msgidofurl"),
        ("camel", "msgIDOfURL"),
        ("pascal", "MsgIDOfURL"),
        ("title", "Msg ID Of URL"),
    ],
)
def test_casings_follow_the_acronyms(casing: str, expected: str) -> None:
    assert cased("msg_id_of_url", casing, frozenset({"id", "url"})) == expected


def test_a_leading_acronym_stays_small_in_camel_case() -> None:
    assert cased("id_of_x", "camel", frozenset({"id"})) == "idOfX"


@pytest.mark.parametrize("casing", sorted(CASINGS))
def test_every_casing_takes_one_letter(casing: str) -> None:
    assert cased("x", casing).lower() == "x"
