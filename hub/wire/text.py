"""Foreign text made harmless for a terminal, the same for every program of ours that prints some. Pure."""

from __future__ import annotations

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that move the cursor, reorder text, hide or break lines: C0, C1, ANSI's escape, bidi controls …"""
_JOINERS = "\u200c\u200d"
"""Joiners inside words and emoji: invisible, but without any effect outside their neighbours."""


def clean(value: object, *, lines: bool = False) -> str:
    """``value`` as text in which every character with power over a terminal is shown as an escape instead.

    With ``lines``, line breaks and tabs stay; otherwise the result is one line.
    """
    text = ("" if value is None else str(value)).replace("\r\n", "\n")
    return "".join(_harmless(char, lines) for char in text)


def _harmless(char: str, lines: bool) -> str:
    if char.isprintable() or char in _JOINERS or (lines and char in "\n\t"):
        return char
    if char in "\n\t":
        return " "
    if unicodedata.category(char) not in _UNSAFE:
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"
