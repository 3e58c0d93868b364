"""Keeps the function's secret out of botocore's log, which at level DEBUG has every request and response in full."""

from __future__ import annotations

import logging
import re

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE

_LOGGERS = ("botocore.endpoint", "botocore.hooks", "botocore.parsers")
"""Those of botocore's loggers that write down requests and responses."""

_SECRET = re.compile(rf"({FUNCTION_KEY_VARIABLE}\W{{1,12}})[0-9A-Fa-f]{{64}}")


class _Redaction(logging.Filter):
    """Lets every record pass, with the secret taken out of its text."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if FUNCTION_KEY_VARIABLE in text:
            record.msg, record.args = _SECRET.sub(r"\1(kept out of the log)", text), ()
        return True


_redaction = _Redaction()


def install() -> None:
    """Have botocore's log redacted from now on; to be called before a function's configuration is asked for or set."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_redaction)  # adding it twice is adding it once
