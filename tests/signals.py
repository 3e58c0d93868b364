"""Signals between tests and calls through files, which both sides see because the local cloud is on this machine."""

import os
import time
from pathlib import Path


def wait_for(condition, limit_s=30.0):
    """Poll until `condition()` is true and return what it returned."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"it did not happen within {limit_s} s")


def mark(path, byte="."):
    """Append one byte to a file, in one system call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, byte.encode())
    os.close(descriptor)


def marks(path):
    """How many bytes `mark` has written."""
    return Path(path).stat().st_size if Path(path).exists() else 0


class Gate:
    """Holds calls until the test opens it.

    Args:
        folder: An empty folder of this test's.
    """

    def __init__(self, folder):
        self.entered = str(Path(folder) / "entered")
        self.opened = str(Path(folder) / "opened")

    def hold(self, value=None):
        """Called by a call: say that it runs, wait, return `value`."""
        mark(self.entered)
        wait_for(lambda: Path(self.opened).exists(), limit_s=60.0)
        return value

    def wait_entered(self, calls=1):
        """Wait until so many calls are held."""
        wait_for(lambda: marks(self.entered) >= calls)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Nothing may wait for a gate that a failed test left closed."""
        self.open()

    def open(self):
        """Let all calls go on."""
        mark(self.opened)
