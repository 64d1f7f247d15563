"""How the search index is made."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

# Values of the option `embedder` beside the URL of an endpoint.
BUILTIN: Final = "builtin"
OFF: Final = "off"


class SearchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the search index.

    Attributes:
        embedder: `builtin`, `off`, or the URL of an OpenAI-compatible endpoint, without `/embeddings`.
        model: The endpoint's model.
        key: The endpoint's key, empty if it wants none.
        timeout: Seconds for one request to the endpoint.
        batch: Texts of one request to the endpoint.
        cache: Folder where what was made is kept; None keeps nothing.
    """

    embedder: str = BUILTIN
    model: str = "text-embedding-3-small"
    key: str = ""
    timeout: float = 10.0
    batch: int = 64
    cache: str | None = None

    @property
    def by_meaning(self) -> bool:
        """Whether agents can be found by meaning."""
        return self.embedder != OFF

    @property
    def cache_file(self) -> Path | None:
        """The database of what was made."""
        return Path(self.cache) / "search.sqlite" if self.cache is not None else None
