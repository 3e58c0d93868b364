"""Sees to it that client and function agree on the packages they share: once per job, and again after new imports.

The first events of a job name the versions of what this process has imported (`lambda_worker/agreement.py` says what
counts, and what a difference means). The worker refuses at a hard difference; its first frame tells its own versions,
so that soft ones are warned of, and from then on events say nothing. On the local cloud the function's packages are the
client's own, so nothing is asked.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Mapping

from lambda_worker import agreement
from wren_backends.connection import Connection
from wren_backends.events import logger

_told: set[str] = set()
_told_lock = threading.Lock()


class Packages:
    """What the function has answered so far, for one job; to be used on one event loop.

    Args:
        connection: The function.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._agreed: frozenset[str] = frozenset()
        self._modules = -1

    def to_ask(self) -> Mapping[str, str]:
        """Versions that the next event has to name."""
        if self._connection.is_local or len(sys.modules) == self._modules:
            return {}
        missing = agreement.loaded() - self._agreed
        asked = agreement.versions(missing)
        if not asked:
            self._modules = len(sys.modules)  # nothing can be missing until more is imported
        return asked

    def answered(self, asked: Mapping[str, str], functions: Mapping[str, str]) -> None:
        """The function has them in these versions, and runs calls with them."""
        self._agreed |= asked.keys()
        differences = agreement.soft_differences(asked, functions)
        if differences:
            self._warn(
                f"{agreement.worded(differences)} ({self._connection.function!r}): results may differ, and some "
                "objects may not unpickle. `wren deploy_lambda --environment` brings the function up to date; or take "
                f"its versions here: `{agreement.install_command(differences)}`"
            )

    def _warn(self, text: str) -> None:
        """Once per process, however many executors there are."""
        with _told_lock:
            if text in _told:
                return
            _told.add(text)
        logger.log(logging.INFO, "packages.differed function=%s", self._connection.function)
        try:
            warnings.warn(text, UserWarning, stacklevel=2)
        except UserWarning:  # a filter says "error", but there is no frame of the user's for it here
            logger.warning("warning.suppressed text=%s", text)
