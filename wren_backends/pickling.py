"""Pickles what calls carry, names functions in messages, and says what to do about what cannot travel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lambda_worker import codec
from lambda_worker.batches import run_chunk
from lambda_worker.protocol import BlobRef, Bytes, Payload
from wren_backends.errors import SerializationError

_NAME_CHARS = 200
"""A function's name stands in every message about its calls: what is longer is cut."""


def dumps(value: object, what: str) -> tuple[Bytes, ...]:
    """Pickle a value with its large buffers apart; raises SerializationError, which calls it `what`."""
    try:
        return codec.dumps(value)
    except Exception as error:
        raise SerializationError(
            f"Could not pickle the task to send it to the workers: {what}: {type(error).__name__}: "
            f"{str(error).rstrip('.')}. {_advice(error)}"
        ) from error


def _advice(error: Exception) -> str:
    if isinstance(error.__cause__ or error, RecursionError):
        return "It is nested too deeply: pass it flat, or call sys.setrecursionlimit here"
    return "Open files, locks, sockets and generators cannot travel: make them inside the function"


def as_serialization_error(error: Exception) -> SerializationError:
    """What keeps a call from being sent, as the one error that futures hold for it."""
    if isinstance(error, SerializationError):
        return error
    made = SerializationError(f"Could not pickle the task to send it to the workers: {type(error).__name__}: {error}")
    made.__cause__ = error
    return made


def key_of(payload: Payload) -> str:
    """Hash of everything that a function is: its pickle, and the arrays that its closure holds."""
    parts = [part.digest if isinstance(part, BlobRef) else codec.digest(part) for part in payload]
    return codec.digest("".join(parts).encode())


def name_of(fn: Callable[..., Any]) -> str:
    """How messages name a function, such as `mymodule.f`; partials are looked into."""
    while isinstance(fn, functools.partial):
        fn = fn.args[0] if fn.func is run_chunk and fn.args else fn.func
    return f"{_attribute(fn, '__module__') or '?'}.{_attribute(fn, '__qualname__') or type(fn).__qualname__}"


def _attribute(fn: Callable[..., Any], attribute: str) -> str:
    """Text for messages and logs, whatever the user's object has under this name."""
    try:
        found = getattr(fn, attribute, None)
    except Exception:  # noqa: BLE001  the user's __getattr__ may raise anything
        return ""
    if not isinstance(found, str):
        return ""
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in found[:_NAME_CHARS])
    return shown if len(found) <= _NAME_CHARS else f"{shown}..."
