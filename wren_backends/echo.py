"""Shows what calls print while they run: asks CloudWatch Logs for their lines, again and again, on a thread.

Workers number each line that a call prints (`lambda_worker/loglines.py`), and the call's outcome has them all, up to a
bound. So each line is shown once and in its order: as it comes where the log is quick, the rest when the call ends.
What an attempt has printed that was lost stays, and the attempt that counts is shown from its beginning.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lambda_worker import loglines
from lambda_worker.loglines import REQUEST_CHARS, Echoed, echoed_phrase
from lambda_worker.protocol import Frame, Outcome, number_of
from wren_backends.connection import Connection
from wren_backends.deploy.log_group import log_group_name
from wren_backends.errors import DeploymentError
from wren_backends.events import logger
from wren_backends.logs import Logs
from wren_backends.terminal import harmless, write_line

_POLL_S, _LOCAL_POLL_S, _SELDOMEST_POLL_S = 1.0, 0.2, 15.0
"""Between two looks: FilterLogEvents may be asked five times a second in a region (CloudWatch Logs quotas)."""

_LATE_MS = 10_000
"""How long after a younger line one may still appear in the log; if it takes longer, it is shown at the call's end."""

_SKEW_MS = 300_000  # the clocks of this machine and of AWS may differ by as much, or nothing works at all
_MOST_PENDING = 1000


@dataclass
class _Text:
    """A stream of one attempt at a call: how many lines were shown, and later ones that wait for those before them."""

    shown: int = 0
    pending: dict[int, str] = field(default_factory=dict)


class Echo:
    """Shows the lines of one job's calls.

    Args:
        connections: The functions that they run on.
        job_id: The job.
        is_idle: Whether no call is under way, so that nothing need be asked; called on this thread.
    """

    def __init__(self, connections: Sequence[Connection], job_id: str, is_idle: Callable[[], bool]) -> None:
        self._connections = connections
        self._job_id = job_id
        self._is_idle = is_idle
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._calls: dict[int, dict[tuple[str, str], _Text]] = {}
        self._ended = bytearray()  # a byte for each call: there may be a million
        begun_ms = int(time.time() * 1000) - _SKEW_MS
        self._newest_ms = {one.function: begun_ms for one in connections}  # each has a log of its own

    def run(self) -> None:
        """Show lines until stopped."""
        usual_s = _LOCAL_POLL_S if self._connections[0].is_local else _POLL_S
        delay_s = usual_s
        while not self._stopped.wait(delay_s):
            if self._is_idle():
                continue
            try:
                for connection in self._connections:
                    self._poll(connection)
                delay_s = usual_s
            except DeploymentError as error:
                if "may not be read" in str(error):
                    self._say_denied(error)
                    return
                logger.debug("echo.failed job=%s error=%s", self._job_id, error)
                delay_s = min(2 * delay_s, _SELDOMEST_POLL_S)

    def stop(self) -> None:
        """End `run` soon."""
        self._stopped.set()

    def end(self, outcome: Outcome, frame: Frame) -> None:
        """Show what has not been shown of a call that has ended, and nothing of it from now on."""
        number = number_of(outcome.seq)
        with self._lock:
            if len(self._ended) <= number:
                self._ended.extend(bytes(number + 1 - len(self._ended) + 1024))
            self._ended[number] = 1
            texts = self._calls.pop(number, {})
            for stream, text in (("out", outcome.stdout), ("err", outcome.stderr)):
                seen = texts.get((frame.request_id[:REQUEST_CHARS], stream))
                for line in loglines.lines_of(text)[seen.shown if seen else 0 :]:
                    _show(number, stream, line)

    def _poll(self, connection: Connection) -> None:
        logs = Logs(connection.open_client("logs"), (log_group_name(connection.function),))
        start_ms = self._newest_ms[connection.function] - _LATE_MS
        for event in logs.events(logs.groups[0], start_ms, phrase=echoed_phrase(self._job_id)):
            if self._stopped.is_set():
                return
            self._newest_ms[connection.function] = max(self._newest_ms[connection.function], event.at_ms)
            said = loglines.read(event.text)
            if isinstance(said, Echoed) and said.job_id == self._job_id:
                self._take(said)

    def _take(self, said: Echoed) -> None:
        with self._lock:
            if said.call < len(self._ended) and self._ended[said.call]:
                return
            text = self._calls.setdefault(said.call, {}).setdefault((said.request, said.stream), _Text())
            if said.number > text.shown and len(text.pending) < _MOST_PENDING:
                text.pending[said.number] = said.text
            while text.shown + 1 in text.pending:
                text.shown += 1
                _show(said.call, said.stream, text.pending.pop(text.shown))

    def _say_denied(self, error: DeploymentError) -> None:
        text = f"echo_output: {error}. What calls print is shown when they end"
        try:
            warnings.warn(text, UserWarning, stacklevel=2)
        except UserWarning:  # a filter says "error", but there is no frame of the user's for it here
            logger.warning("warning.suppressed text=%r", text)


def _show(call: int, stream: str, line: str) -> None:
    write_line(sys.stdout if stream == "out" else sys.stderr, f"[call {call}] {harmless(line)}")
