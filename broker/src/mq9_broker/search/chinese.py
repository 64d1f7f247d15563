"""Chinese words in Latin letters and in English, from the dictionary CC-CEDICT, which comes in a wheel.

Many a Chinese name is written in pinyin elsewhere: who looks for 飞书 means `feishu`. And an English gloss of
a Chinese text lets vectors of English words compare it with English ones.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mq9_broker.search.words import MAX_QUERY_WORDS, UNSPACED

if TYPE_CHECKING:
    import lindera  # type: ignore[import-untyped]

# Senses of a word that go into a gloss, and characters that are looked up in a text.
_SENSES: Final = 2
_MOST_TEXT: Final = 2_000
# Syllables of one name in pinyin, and letters: shorter ones are taken for other words too often.
_MOST_SYLLABLES: Final = 5
_LEAST_LETTERS: Final = 5
# Words whose entry is remembered: a look-up costs more than the division into words.
_MOST_KNOWN: Final = 20_000

_NO_SENSE: Final = re.compile(
    r"^(CL:|variant|old variant|abbr|also |see |used in|surname|erhua|\(?archaic|Japanese variant|Taiwan pr)"
)
_ASIDES: Final = re.compile("\\([^)]*\\)|\\[[^\\]]*\\]|[\u3400-\u9fff|]+")
_TO: Final = re.compile("^to ")
_NOT_A_LETTER: Final = re.compile("[^a-z]+")


def has_chinese(text: str) -> bool:
    """Whether a text has characters that the dictionary may know."""
    return not text.isascii() and UNSPACED.search(text) is not None


def gloss(text: str) -> str:
    """Return a text with its Chinese words replaced by what they mean in English."""
    return UNSPACED.sub(_gloss_of_run, text[:_MOST_TEXT])


def _gloss_of_run(run: re.Match[str]) -> str:
    found = [" "]
    for surface, _, senses in _look_up(run.group()):
        if UNSPACED.fullmatch(surface) is None:
            found.append(surface)
        else:
            found += senses
    return " ".join((*found, " "))


def words(text: str) -> str:
    """Return a text with blanks between its words, Chinese ones of one character left out."""
    found = [surface for surface, _, _ in _look_up(text[:_MOST_TEXT])]
    return " ".join(word for word in found if len(word) > 1 or UNSPACED.match(word) is None)


def pinyin(text: str) -> list[str]:
    """Return what names of two to five neighbouring characters are in pinyin, without tones and blanks."""
    found: dict[str, None] = {}
    for run in UNSPACED.findall(text[:_MOST_TEXT]):
        syllables: list[str] = []
        for surface, sounds, _ in _look_up(run):
            syllables += sounds if len(sounds) == len(surface) else [""] * len(surface)
        for start in range(len(syllables)):
            for end in range(start + 2, min(start + _MOST_SYLLABLES, len(syllables)) + 1):
                name = "".join(syllables[start:end])
                if all(syllables[start:end]) and len(name) >= _LEAST_LETTERS:
                    found[name] = None
        if len(found) > MAX_QUERY_WORDS:
            break
    return list(found)[:MAX_QUERY_WORDS]


@functools.cache
def _tokenizer() -> lindera.Tokenizer:
    # Only when the first Chinese text comes: the dictionary takes 60 MB of memory.
    import lindera  # noqa: PLC0415

    return lindera.Tokenizer(lindera.load_dictionary("embedded://cc-cedict"), mode="normal")


# What the dictionary says of a word: its syllables and its senses.
_Known = tuple[list[str], tuple[str, ...]]
_known: dict[tuple[str, int], _Known] = {}


def _look_up(text: str) -> Iterator[tuple[str, list[str], tuple[str, ...]]]:
    """The words of a text, each with its syllables and its senses."""
    for token in _tokenizer().tokenize(text):
        key = (token.surface, token.word_id)
        known = _known.get(key)
        if known is None:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            known = _known[key] = _details(token.details)
        yield key[0], *known


def _details(details: list[str] | None) -> _Known:
    if details is None or len(details) <= 7:
        return [], ()
    sounds = [_NOT_A_LETTER.sub("", sound.lower()) for sound in details[4].split()]
    return sounds, _senses(",".join(details[7:]))


def _senses(definition: str) -> tuple[str, ...]:
    found: list[str] = []
    for sense in definition.split("/"):
        if not sense.strip() or _NO_SENSE.search(sense.strip()):
            continue
        plain = _TO.sub("", " ".join(_ASIDES.sub("", sense).split()))
        if plain:
            found.append(plain)
    return tuple(found[:_SENSES])
