"""Search by words: what is found, in which order, whatever is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq9_broker.search.interface import CursorError
from mq9_broker.search.words import MAX_QUERY_WORDS, query_words

from .support import Registry, of


def test_all_words_come_first_then_some() -> None:
    found = of(
        a="translates text", b="translates text to French", c="weather forecast", d="French weather, French"
    )
    assert found.names("translates French")[0] == "b"
    assert set(found.names("translates French")) == {"a", "b", "d"}
    long = " ".join(f"w{n}" for n in range(200))
    found.put("e", description=f"translates {long} French")
    # All words far apart in a long text still come before one of them in a short one.
    assert set(found.names("translates French")[:2]) == {"b", "e"}
    assert found.names("nothing of that") == []


def test_a_word_of_two_documents_out_of_many_says_more_than_one_of_most() -> None:
    found = Registry()
    for number in range(20):
        found.put(f"n{number}", description="a server of something")
    found.put("rare", description="a zither")
    assert found.names("zither server")[0] == "rare"


@pytest.mark.parametrize("query", ["STRASSE", "straße", "Straße!", "(strasse)"])
def test_case_and_width_do_not_matter(query: str) -> None:
    assert of(a="Die Straße", b="x").names(query) == ["a"]
    assert of(a="\uff21\uff22\uff23", b="x").names("abc") == ["a"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Café Zürich", "cafe"),
        ("Cafe Zurich", "café zürich"),
        ("cafe\u0301", "CAFÉ"),
        ("naïve", "naive"),
        ("Ελληνικά", "ελληνικα"),
    ],
)
def test_accents_are_folded(text: str, query: str) -> None:
    assert of(a=text, b="x").names(query) == ["a"]


@pytest.mark.parametrize(
    "query",
    [
        "mcp-server-git",
        "MCP-Server-Git",
        "mcp server git",
        "git",
        "server git",
        "mcp_server_git",
        "mcpservergit",
    ],
)
def test_an_identifier_is_found_by_part_and_as_a_whole(query: str) -> None:
    found = Registry()
    found.put("mcp-server-git")
    found.put("mcp-server-fetch")
    found.put("other")
    assert found.names(query)[0] == "mcp-server-git"


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("GitHub issues", "github"),
        ("GitHub issues", "GITHUB"),
        ("GitHub issues", "hub"),
        ("PDFReader", "pdf"),
        ("reads Pdf files", "PDF"),
        ("Node.js", "nodejs"),
        ("nodejs", "Node.js"),
        ("C++ compiler", "c++"),
        ("C# compiler", "C#"),
        ("fal.ai images", "fal.ai"),
        ("shadcn-ui", "shadcn/ui"),
        ("gpt-4o", "gpt-4o"),
    ],
)
def test_names_of_things(text: str, query: str) -> None:
    assert of(a=text, b="x").names(query) == ["a"]


def test_c_plus_plus_is_not_c() -> None:
    found = of(x="written in C", y="written in C++", z="written in C#")
    assert found.names("C++")[0] == "y"
    assert found.names("C#")[0] == "z"
    assert set(found.names("C")) == {"x", "y", "z"}
    assert found.names("C")[0] == "x"


def test_the_last_word_may_be_unfinished() -> None:
    found = of(a="translates text", b="transport of goods", c="weather")
    assert set(found.names("trans")) == {"a", "b"}
    assert found.names("text trans")[0] == "a"
    assert found.names("trans weather") == ["c"]
    assert found.names("transp") == ["b"]
    whole = of(a="transport of goods", b="trans")
    assert whole.names("trans") == ["b", "a"]


def test_chinese_needs_no_blanks() -> None:
    found = of(a="中英翻译专家", b="天气预报 weather", c="翻书")
    assert found.names("翻译") == ["a"]
    assert found.names("我想找翻译") == ["a"]
    assert found.names("天气 translate") == ["b"]
    assert set(found.names("翻")) == {"a", "c"}
    assert found.names("PDF翻译") == ["a"]
    assert of(a="GPT模型").names("gpt") == ["a"]
    assert of(a="翻訳エージェント").names("エージェント") == ["a"]
    assert of(a="が", b="か").names("が") == ["a"]


def test_a_chinese_name_is_found_in_pinyin_behind_those_that_have_it() -> None:
    found = of(a="feishu documents", b="飞书文档", c="语雀", d="yuque")
    assert found.names("飞书") == ["b", "a"]
    assert found.names("语雀") == ["c", "d"]


def test_a_name_weighs_more_than_a_description_and_that_more_than_the_rest() -> None:
    found = Registry()
    found.put("other", description="works with trino", provider={"organization": "x"})
    found.put("trino", description="works with tables", provider={"organization": "y"})
    found.put("third", description="works with tables", provider={"organization": "trino"})
    found.put("skilled", description="works with tables", skills=[{"id": "trino", "tags": ["sql"]}])
    order = found.names("trino")
    assert order[0] == "trino"
    assert order[-1] == "third"
    assert set(order) == {"trino", "other", "third", "skilled"}


def test_every_string_is_found_and_no_name_of_a_member() -> None:
    found = Registry()
    found.put(
        "deep", card={"a": [{"b": ["quasar", {"c": "pulsar"}]}]}, skills=["nebula", {"examples": ["nova"]}]
    )
    for word in ("quasar", "pulsar", "nebula", "nova"):
        assert found.names(word) == ["deep"]
    assert found.names("examples") == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"x","d":1e999,"i":123456789012345678901234567890,"t":"word"}',
        b'{"name":"x","payload":"word"}',
        b'{"name":"x","skills":{"name":"word"}}',
        b'{"name":"x","tags":"word"}',
        b'{"name":"x","description":["word"]}',
        b'{"name":"x","title":{"en":"word"}}',
        b'{"name":"x","skills":[null,1,["word"]]}',
    ],
)
def test_any_body_is_indexed(body: bytes) -> None:
    found = Registry()
    found.put("x", body)
    assert found.names("word") == ["x"]


def test_equal_matches_come_by_name_in_byte_order() -> None:
    found = Registry()
    order = ["", "A", "Z", "a", "b", "z", "é", "组", "\U0001f600"]
    for name in reversed(order):
        found.put(name, b'{"text":"same words"}')
    assert found.names("words") == order


def test_pages_and_continuation_show_each_document_once_whoever_comes_and_goes() -> None:
    found = Registry()
    for number in range(50):
        found.put(f"n{number:02}", description="word " * (number % 5 + 1))
    everything = found.hits("word other", 1000)
    assert len(everything) == 50
    assert [hit for page in range(6) for hit in found.hits("word other", 10, skip=page * 10)] == everything
    seen: list[str] = []
    page = found.found("word other", 7)
    for step in range(100):
        seen += [hit.name for hit in page.hits]
        if not page.hits:
            break
        # What is rare among them changes all the time.
        for number in range(20):
            found.put(f"x{step} {number}", description="word other" if step % 2 else "neither")
        found.remove(f"x{step - 1} 0")
        last = page.hits[-1]
        page = found.found("word other", 7, after=(last.name, last.score), rarities=page.rarities)
    stayed = [name for name in seen if name.startswith("n")]
    assert stayed == [hit.name for hit in everything]
    assert len(seen) == len(set(seen))


def test_numbers_of_another_query_are_refused() -> None:
    found = of(a="one two")
    with pytest.raises(CursorError):
        found.hits("one two three", after=("a", 1.0), rarities=[1, 1])


def test_replacing_and_removing() -> None:
    found = of(a="one", b="two")
    found.put("a", description="two")
    assert found.names("one") == []
    assert found.names("two") == ["a", "b"]
    found.put("a", description="two")
    found.remove("b")
    found.remove("never there")
    assert found.names("two") == ["a"]
    assert len(found.search.index) == 1


def test_what_is_gone_is_swept_and_its_place_used_again() -> None:
    found = Registry()
    index = found.search.index
    for number in range(3000):
        found.put("changes", description=f"common w{number}")
        found.put(f"stays{number % 10}", description=f"common s{number % 10}")
        while index.has_work:
            index.work()
    assert len(index) == 11
    assert index.words < 3000
    assert index.capacity < 4000
    assert found.names("w2999") == ["changes"]
    assert found.names("w1") == []
    assert set(found.names("common")) == {"changes", *(f"stays{n}" for n in range(10))}


@pytest.mark.parametrize(
    "query",
    [
        '" OR "',
        "'; DROP TABLE documents; --",
        "NEAR(one, 2)",
        "one*",
        "^one",
        "name : one",
        "one AND NOT two",
        "%_\\",
        "\x00one\x00",
        "one " * 5000,
        " ".join(f"w{n}" for n in range(5000)) + " one",
        "x" * 10_000,
        "组" * 10_000,
        "飞书" * 5_000,
        "-" * 10_000,
        "a-" * 5_000,
        "c+" * 5_000,
        "\ud83d".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    ],
)
def test_anything_is_a_query_and_never_a_command(query: str) -> None:
    found = of(one="one", two="two")
    assert set(found.names(query)) <= {"one", "two"}
    assert found.names("one") == ["one"]


def test_words_beyond_the_bound_are_ignored() -> None:
    assert len(query_words(" ".join(f"w{n}" for n in range(5000)))) == MAX_QUERY_WORDS


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_document_is_found_by_each_of_its_words(text: str, query: str) -> None:
    found = Registry()
    found.put("", description=text)
    assert found.names(query) in ([], [""])
    for word in text.split():
        if query_words(word):
            assert found.names(word) == [""]
