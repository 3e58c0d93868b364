"""The one exception this package raises at its users."""

from __future__ import annotations


class LocalCloudError(RuntimeError):
    """The local cloud could not be started, found or used; the text says what to do about it."""
