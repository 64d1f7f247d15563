"""Words of texts, in the spelling of the index.

Case, width and accents are folded. An identifier counts by its parts and as a whole: `mcp-server-git` and
`McpServerGit` are `mcp`, `server`, `git` and `mcpservergit`; `C++` and `C#` are words. Runs of Han and kana,
which are written without blanks, are single characters and pairs of neighbours.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple

# Words of a query beyond this many different ones are ignored: nobody types them, and each costs a look-up.
MAX_QUERY_WORDS: Final = 500
# A longer word is cut: nobody looks for one.
MAX_WORD: Final = 64
# A compound of more words is not a word by itself.
MAX_JOINED: Final = 8

# Han (with extensions and compatibility forms), hiragana and katakana: scripts written without blanks.
UNSPACED: Final = re.compile(
    "[\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
# Words joined by marks as identifiers, file names and versions are, and what may stand behind one: C++, F#.
_COMPOUND: Final = re.compile(r"[^\W_]+(?:[-_./:@&'\u2019]{1,2}[^\W_]+)*(?:\+\+|#)?")
_WORD: Final = re.compile(r"[^\W_]+")
_HUMPS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ACCENTS: Final = re.compile("[\u0300-\u036f]+")


class QueryWord(NamedTuple):
    """A word that is looked for.

    Attributes:
        text: In the spelling of the index.
        is_needed: Whether a document has to have it to have all words of the query.
    """

    text: str
    is_needed: bool


def fold(text: str) -> str:
    """Fold case, width and accents."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    folded = folded.casefold()
    if folded.isascii():
        return folded
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", folded)))


def words_of_compound(compound: str) -> list[str]:
    """Return the words of what `compounds` found, in the order of a document's."""
    found: list[str] = []
    parts = _parts(compound)
    for part in parts:
        if UNSPACED.match(part):
            found += part
            found += [part[i : i + 2] for i in range(len(part) - 1)]
        else:
            found.append(part)
    found += _wholes(compound, parts)
    found += _humps(compound)
    return found


def compounds(text: str) -> list[str]:
    """Return what stands together in a text: words, and words joined by marks as identifiers are."""
    normal = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return _COMPOUND.findall(normal)


def query_words(text: str) -> list[QueryWord]:
    """Return the different words of a query; of Chinese the pairs, or a character that stands alone."""
    found: dict[str, bool] = {}
    for compound in compounds(text):
        if len(found) >= MAX_QUERY_WORDS:
            break
        parts = _parts(compound)
        wholes = _wholes(compound, parts)
        has_sign = bool(wholes) and wholes[-1][-1] in "+#"
        for part in parts:
            if len(part) > 1 and UNSPACED.match(part):
                found.update((part[i : i + 2], True) for i in range(len(part) - 1))
            else:
                # Who looks for C++ does not look for C.
                found[part] = found.get(part, False) or not (has_sign and part == parts[-1])
        for whole in wholes:
            found.setdefault(whole, whole[-1] in "+#")
    return [QueryWord(*pair) for pair in found.items()][:MAX_QUERY_WORDS]


def last_word(text: str) -> str:
    """Return the word at the very end of a query, which may be the beginning of a longer one; or nothing."""
    match = re.search(r"[^\W_]+\Z", text[-4 * MAX_WORD :])
    parts = _parts(match.group()) if match is not None else []
    return parts[-1] if parts and not UNSPACED.match(parts[-1]) else ""


def _parts(compound: str) -> list[str]:
    found: list[str] = []
    for word in _WORD.findall(fold(compound)):
        if word.isascii():
            found.append(word[:MAX_WORD])
            continue
        end = 0
        for run in UNSPACED.finditer(word):
            if run.start() > end:
                found.append(word[end : run.start()][:MAX_WORD])
            found.append(run.group())
            end = run.end()
        if end < len(word):
            found.append(word[end:][:MAX_WORD])
    return found


def _wholes(compound: str, parts: list[str]) -> list[str]:
    """A compound as one word, and its last word with the sign behind it."""
    found: list[str] = []
    if not parts:
        return found
    sign = "++" if compound.endswith("++") else "#" if compound.endswith("#") else ""
    if 1 < len(parts) <= MAX_JOINED and not any(UNSPACED.match(part) for part in parts):
        joined = "".join(parts)
        if len(joined) <= MAX_WORD:
            found.append(joined)
    if sign:
        found.append(parts[-1] + sign)
    return found


def _humps(compound: str) -> list[str]:
    """The parts of words in mixed case: `GitHub` has `git` and `hub`."""
    found: list[str] = []
    for word in _WORD.findall(compound):
        if word.isascii() and not (word.islower() or word.isupper() or word[1:].islower() or word.isdigit()):
            humps = [hump for hump in _HUMPS.findall(word) if not hump.isdigit()]
            if len(humps) > 1:
                found += [hump.lower() for hump in humps if len(hump) > 1]
    return found
