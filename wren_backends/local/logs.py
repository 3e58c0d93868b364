"""What functions print: one log stream per execution environment, kept in files under the cloud's directory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

_FLUSH_LINES = 2000

MOST_BYTES = 1024 * 1024
"""What a question about logs has handed on of one stream at most, beside marks: of 8 MB, 200,000 lines, moto took 17 s
to be asked once and 11 s each time after that."""

_MARKS = (b"\tinvocation.begun job=", b"\tcall.printing job=")
"""How lines begin that say whose the following ones are (`lambda_worker/loglines.py`)."""


class _Clock:
    """Words the present moment; formatting every line's date anew would cost more than keeping the line."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def now(self) -> str:
        milliseconds = time.time_ns() // 1_000_000
        second, rest = divmod(milliseconds, 1000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{rest:03d}Z"


_clock = _Clock()


@dataclass(eq=False)
class LogStream:
    """One environment's lines; buffered, so that an invocation costs no file access."""

    group: str
    name: str
    path: Path
    synced_bytes: int = 0
    _lines: list[str] = field(default_factory=list)
    _partial: bytes = b""

    def write(self, line: str) -> None:
        """Add one line, without its line end."""
        self._lines.append(f"{_clock.now()}\t{line}\n")
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()

    def feed(self, data: bytes) -> None:
        """Add raw output; a last line without its end waits for the rest."""
        *complete, self._partial = (self._partial + data).split(b"\n")
        for line in complete:
            self.write(line.decode(errors="replace"))

    def end_partial_line(self) -> None:
        """Add an unfinished line as it is: the invocation that printed it has ended."""
        if self._partial:
            line, self._partial = self._partial, b""
            self.write(line.decode(errors="replace"))

    def flush(self) -> None:
        """Append the buffered lines to the file."""
        if not self._lines:
            return
        text, self._lines = "".join(self._lines), []
        try:
            with self.path.open("ab") as file:
                file.write(text.encode())
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(text.encode())

    def unsynced(self) -> Iterator[tuple[int, str]]:
        """Yield the lines (milliseconds, text) that were not yielded before; of very many the newest."""
        self.flush()
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            newest = self.path.stat().st_size - MOST_BYTES
            file.seek(self.synced_bytes)
            skipped = 0
            for line in file:
                is_old = self.synced_bytes < newest
                self.synced_bytes += len(line)
                if is_old and not any(mark in line for mark in _MARKS):
                    skipped += len(line)
                    continue
                moment, _, text = line.decode().rstrip("\n").partition("\t")
                at_ms = int(datetime.fromisoformat(moment).timestamp() * 1000 + 0.5)
                if skipped:
                    yield at_ms, f"({skipped:,} bytes before this are in {self.path} alone)"
                    skipped = 0
                yield at_ms, text


class LogStore:
    """All log streams of a cloud."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.streams: list[LogStream] = []

    def open(self, function_name: str, version: str) -> LogStream:
        """Open a stream, named as AWS names it."""
        identity = uuid4().hex
        name = f"{datetime.now(UTC):%Y/%m/%d}/[{version}]{identity}"
        path = self._directory / function_name / f"{name.replace('/', '-')}.log"
        stream = LogStream(f"/aws/lambda/{function_name}", name, path)
        self.streams.append(stream)
        return stream

    def flush(self) -> None:
        """Write everything that is buffered to its file."""
        for stream in self.streams:
            stream.flush()
