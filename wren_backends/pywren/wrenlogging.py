"""PyWren's way to see log messages; `PYWREN_LOGLEVEL` and `WREN_LOGLEVEL` show those of this library alone."""

from __future__ import annotations

import logging


def default_config(log_level: str | int = "INFO") -> None:
    """Show the log messages of all loggers on standard error.

    Args:
        log_level: The least level that is shown.
    """
    logging.basicConfig(level=log_level, format="%(asctime)s [%(levelname)s] %(name)s: %(message)s", force=True)
