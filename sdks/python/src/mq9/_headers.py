"""How the values of a message's headers are read."""

from __future__ import annotations


class HeaderReader:
    """Reads single headers of a message. Names match in any case; the first value counts."""

    __slots__ = ()

    headers: dict[str, list[str]] | None

    def _text_header(self, name: str) -> str | None:
        for spelled, values in (self.headers or {}).items():
            if values and spelled.lower() == name:
                return values[0]
        return None

    def _integer_header(self, name: str) -> int | None:
        text = self._text_header(name)
        return int(text) if text is not None and text.isascii() and text.isdigit() else None

    def _comma_separated_header(self, name: str) -> list[str] | None:
        text = self._text_header(name)
        return None if text is None else [item.strip() for item in text.split(",") if item.strip()]
