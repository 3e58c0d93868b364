"""A live progress bar over all of this process's executors, whatever adapter submits the calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wren_backends.events import PROCESS, Happening


@contextmanager
def progress(total: int | None = None, *, text: str = "wren", console: Console | None = None) -> Iterator[None]:
    """Show calls as they end, for as long as the context lasts.

    Args:
        total: How many there will be; default: as many as have been submitted so far.
        text: What stands before the bar.
        console: Where to draw; default: standard error, and nothing but the last line if that is no terminal.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[environments]} environments"),
        TimeElapsedColumn(),
        console=console or Console(stderr=True),
    )
    task = bar.add_task(text, total=total, environments=0)
    lock = threading.Lock()
    environments: set[str] = set()
    submitted_before = PROCESS.counts.get("call.submitted", 0)

    def listen(happening: Happening) -> None:
        if happening.name == "invocation.finished":
            with lock:
                environments.add(happening.fields["environment"])
        elif happening.name in ("call.finished", "call.failed"):
            known = total or int(PROCESS.counts.get("call.submitted", 0) - submitted_before)
            bar.update(task, advance=1, total=known, environments=len(environments))

    with bar, PROCESS.listening(listen):
        yield
