"""The user's settings file: values are put into it and taken out again, and all else in it stays as it was written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from wren_backends.errors import ConfigError
from wren_backends.sources import user_file

_MARK = "written by wren setup"


class SettingsFile:
    """`$XDG_CONFIG_HOME/wren/wren.toml`, or `~/.config/wren/wren.toml`."""

    @property
    def path(self) -> Path:
        """Where it is."""
        return user_file()

    def values(self) -> dict[str, Any]:
        """What it says."""
        return dict(self._read().unwrap())

    def marked(self) -> dict[str, Any]:
        """What it says that we have written."""
        document = self._read()
        return {name: value for name, value in document.unwrap().items() if _MARK in _comment(document, name)}

    def write(self, *, values: Mapping[str, Any]) -> None:
        """Put values into it, each marked as ours.

        Raises:
            ConfigError: It cannot be read or written.
        """
        document = self._read()
        for name, value in values.items():
            item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
            item.comment(_MARK)
            document[name] = item
        self._save(document)

    def remove(self, *, names: Iterable[str]) -> None:
        """Take values out of it; the file goes when nothing else is in it.

        Raises:
            ConfigError: It cannot be read or written.
        """
        document = self._read()
        for name in names:
            document.remove(name)
        self._save(document)

    def _read(self) -> tomlkit.TOMLDocument:
        try:
            return tomlkit.parse(self.path.read_text())
        except FileNotFoundError:
            return tomlkit.document()
        except (OSError, ValueError, TOMLKitError) as error:
            raise ConfigError(f"{self.path} cannot be read: {error}") from error

    def _save(self, document: tomlkit.TOMLDocument) -> None:
        text = tomlkit.dumps(document)
        try:
            if not text.strip():
                self.path.unlink(missing_ok=True)
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            temporary.write_text(text)
            temporary.replace(self.path)
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written: {error}. Set XDG_CONFIG_HOME to a folder of yours, or use --no-config "
                "and set the WREN_ variables yourself"
            ) from error


def _comment(document: tomlkit.TOMLDocument, name: str) -> str:
    trivia = getattr(document.item(name), "trivia", None)
    return str(trivia.comment) if trivia else ""
