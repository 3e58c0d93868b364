"""Texts of others as a terminal may have them: nothing but colours that it would obey; and how they are written."""

from __future__ import annotations

import re
from typing import Any

from wren_backends.events import logger

# A colour is `ESC [ numbers m` (ECMA-48, "Select graphic rendition").
_OBEYED = re.compile(r"(\x1b\[[\d;]*m)|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def harmless(line: str) -> str:
    """One line of text, with what a terminal would obey written out."""
    return _OBEYED.sub(lambda found: found[1] or found[0].encode("unicode_escape").decode(), line)


def write(stream: Any, text: str) -> None:
    """Write a text of a call's; what the stream's encoding has no characters for is written out."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
    stream.flush()


def write_line(stream: Any, line: str) -> None:
    """Write a line in one piece; failing to is no reason to fail."""
    try:
        if stream is not None:
            write(stream, f"{line}\n")
    except Exception as error:  # noqa: BLE001  the stream may be closed, or anything that has `write`
        logger.warning("output.lost characters=%d error=%r", len(line), error)
