"""What a soak has called: right answers are known beforehand, and some calls kill their environment once."""

import hashlib
import os
import signal

from faults.calls import is_first

DEATHS = {37: "exit", 87: "segmentation fault"}
"""Which calls of each 200 die when they run for the first time, and of what: 1%."""


def answer(n):
    return hashlib.sha256(str(n).encode()).hexdigest()


def work(n, folder):
    death = DEATHS.get(n % 200)
    if death and is_first(f"{folder}/{n}"):
        if death == "exit":
            os._exit(1)
        # Not SIGKILL, which Lambda uses for calls that need too much memory: those are not run again.
        os.kill(os.getpid(), signal.SIGSEGV)
    return answer(n)
