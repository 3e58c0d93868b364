"""What the tests here have called: small, so that the worker imports nothing for it."""

import os
import uuid

from signals import mark, marks


def square(n):
    return n * n


def counted(path, value):
    """Leave a mark for each time this runs."""
    mark(path)
    return value


def dies():
    os._exit(3)


def dies_at_first(path, value):
    mark(path)
    if marks(path) == 1:
        os._exit(3)
    return value


def large(size):
    """A result that does not fit a frame."""
    return bytes(size)


def length(data):
    return len(data)


def named_run(gate):
    """A value that no other run has."""
    gate.hold()
    return uuid.uuid4().hex


def first_run_held(path, gate):
    """As `named_run`, but only the first run waits."""
    if is_first(path):
        gate.hold()
    return uuid.uuid4().hex


def first_run_dies(path):
    if is_first(path):
        os._exit(3)
    return "value"


def is_first(path):
    """Whether no other run was here before; of two at once one is."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
