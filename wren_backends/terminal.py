"""Texts of others as a terminal may have them: colours are left, nothing else that it would obey."""

from __future__ import annotations

import re

# A colour is `ESC [ numbers m` (ECMA-48, "Select graphic rendition").
_OBEYED = re.compile(r"(\x1b\[[\d;]*m)|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def harmless(line: str) -> str:
    """One line of text, with what a terminal would obey written out."""
    return _OBEYED.sub(lambda found: found[1] or found[0].encode("unicode_escape").decode(), line)
