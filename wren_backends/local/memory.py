"""Resident memory of an execution environment's processes, read from /proc.

RLIMIT_AS would count address space, which numpy's threads reserve by the gigabyte, and cgroups need privileges;
looking 20 times a second needs none and ends an environment within 0.2 s.
"""

from __future__ import annotations

import contextlib
import os

_PAGE = os.sysconf("SC_PAGE_SIZE")


class MemoryGauge:
    """Measures one process and its descendants; on systems without /proc it always reads 0."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak = 0
        try:
            self._statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
        except OSError:
            self._statm = -1

    def sample(self) -> int:
        """Measure the main process alone, which is cheap, and return the peak so far."""
        if self._statm >= 0:
            with contextlib.suppress(OSError, IndexError):  # the process is gone
                self.peak = max(self.peak, _resident(os.pread(self._statm, 64, 0)))
        return self.peak

    def sample_tree(self) -> int:
        """Measure the process with all its descendants and return the sum of this moment."""
        if self._statm < 0:
            return 0
        total = sum(_resident_of(pid) for pid in _tree(self._pid))
        self.peak = max(self.peak, total)
        return total

    def close(self) -> None:
        """Let go of the process."""
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1


def _resident(statm: bytes) -> int:
    return int(statm.split()[1]) * _PAGE


def _resident_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return _resident(file.read())
    except (OSError, IndexError):
        return 0


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:  # grows while it is walked
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children") as file:
                    found += map(int, file.read().split())
        except OSError:
            continue
    return found
