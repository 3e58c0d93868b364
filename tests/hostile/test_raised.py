"""Whatever a call raises comes back as itself, or as a typed error that tells what it was."""

import asyncio
import concurrent.futures
import copyreg
import threading
import warnings

import pytest

from wren_backends import CallExitedError, SerializationError


class NeedsArgumentsError(Exception):
    def __init__(self, code, *, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class OwnBaseException(BaseException):
    pass


class OwnGroup(ExceptionGroup):
    def derive(self, excs):
        return OwnGroup(self.message, excs)


class FrozenError(Exception):
    __slots__ = ()

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} is read-only")


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def raise_(error):
    raise error


def make(kind, *args):
    raise kind(*args)


ORDINARY = [
    GeneratorExit("g"),
    StopIteration(3),
    StopAsyncIteration("s"),
    asyncio.CancelledError("c"),
    concurrent.futures.CancelledError("c"),
    concurrent.futures.TimeoutError("t"),
    concurrent.futures.InvalidStateError("i"),
    concurrent.futures.BrokenExecutor("b"),
    threading.BrokenBarrierError("b"),
    OwnBaseException("own", 3),
    MemoryError("m"),
    OSError(28, "No space left on device", "file"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
    SyntaxError("bad", ("file", 1, 2, "text")),
    UserWarning("as an exception"),
]


@pytest.mark.parametrize("error", ORDINARY, ids=lambda error: type(error).__name__)
def test_it_comes_back_as_itself(tried_in_any_mode, error):
    future = tried_in_any_mode.submit(raise_, error)
    found = future.exception(timeout=60)
    assert type(found) is type(error)
    assert found.args == error.args
    assert {**vars(found), **vars(error), "__notes__": None} == {**vars(found), "__notes__": None}
    assert "in raise_" in str(found.__cause__)
    assert not future.cancelled()
    with pytest.raises(type(error)):
        future.result()


def test_what_needs_arguments(tried_in_any_mode):
    error = tried_in_any_mode.error(lambda: raise_(NeedsArgumentsError(3, text="ä\udcff")))
    assert (type(error), error.args) == (NeedsArgumentsError, ("3: ä\udcff",))
    assert (error.code, error.text) == (3, "ä\udcff")


@pytest.mark.parametrize("group", [ExceptionGroup, BaseExceptionGroup, OwnGroup])
def test_groups_of_exceptions(tried_in_any_mode, group):
    def fails():
        inner = ExceptionGroup("inner", [NeedsArgumentsError(3, text="t"), KeyError("k")])
        raise group("outer", [ValueError(1), inner])

    error = tried_in_any_mode.error(fails)
    assert isinstance(error, group)
    assert (error.message, [type(one) for one in error.exceptions]) == ("outer", [ValueError, ExceptionGroup])
    nested = error.exceptions[1]
    assert nested.message == "inner"
    assert [type(one) for one in nested.exceptions] == [NeedsArgumentsError, KeyError]
    assert (nested.exceptions[0].code, nested.exceptions[0].text) == (3, "t")
    matched, _ = error.split(NeedsArgumentsError)
    assert matched is not None
    assert "NeedsArgumentsError: 3: t" in str(error.__cause__)


def test_groups_of_exceptions_that_are_no_errors(tried):
    def fails():  # made there: as an argument it would be pickled by whatever dask.distributed has installed here
        raise BaseExceptionGroup("g", [OwnBaseException("own"), KeyboardInterrupt(), SystemExit(3)])

    error = tried.error(fails)
    assert [type(one) for one in error.exceptions] == [OwnBaseException, KeyboardInterrupt, SystemExit]


class CannotBePickledError(Exception):
    def __reduce__(self):
        raise OwnBaseException("not to be pickled")


class ExitsError(Exception):
    def __reduce__(self):
        return raise_, (SystemExit(3),)


class LocksError(Exception):
    def __init__(self):
        super().__init__(threading.Lock())


@pytest.mark.parametrize("kind", [CannotBePickledError, ExitsError, LocksError])
def test_what_cannot_be_pickled_is_told_in_text(tried, kind):
    error = tried.error(make, kind)
    assert type(error) is SerializationError
    for part in ("its exception cannot be pickled", "in make", kind.__name__):
        assert part in str(error)


def test_what_cannot_be_pickled_within_a_group(tried):
    error = tried.error(lambda: raise_(ExceptionGroup("outer", [ValueError("fine"), LocksError()])))
    assert type(error) is SerializationError
    assert "ValueError: fine" in str(error)
    assert "LocksError" in str(error)


def test_what_has_no_text(tried):
    error = tried.error(make, SilentError)
    assert type(error) is SilentError
    assert "exception str() failed" in str(error.__cause__)


def test_what_takes_no_attributes(tried):
    error = tried.error(make, FrozenError, "frozen")
    assert (type(error), error.args) == (FrozenError, ("frozen",))


def test_what_refers_to_itself(tried):
    def fails():
        error = ValueError("cycle")
        error.me = error.__context__ = error
        raise error

    error = tried.error(fails)
    assert error.me is error


def test_chains_of_any_length(tried):
    def fails(depth):
        try:
            if depth:
                fails(depth - 1)
        finally:
            raise ValueError(depth)

    assert tried.error(fails, 200).args == (200,)


def test_a_message_beyond_every_limit(tried_in_any_mode):
    error = tried_in_any_mode.error(lambda: make(ValueError, "x" * 7_000_000))
    assert type(error) is ValueError
    assert len(error.args[0]) == 7_000_000


@pytest.mark.parametrize("code", [None, 0, 3, "text", "\udcff", 10**400, ["x"]])
def test_exits(tried_in_any_mode, code):
    error = tried_in_any_mode.error(make, SystemExit, code)
    assert type(error) is CallExitedError


def test_warnings_of_all_kinds(tried):
    def warns():
        for category in (DeprecationWarning, BytesWarning, ResourceWarning, PendingDeprecationWarning):
            warnings.warn("ä\udcff\0\n", category, stacklevel=1)
        warnings.warn_explicit("text", UserWarning, "no such file", -1)
        return "the value"

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert tried.result(warns) == "the value"
    assert {one.category for one in caught} >= {DeprecationWarning, BytesWarning, ResourceWarning, UserWarning}


def test_a_warning_that_is_raised_there(tried):
    def warns():
        warnings.simplefilter("error")
        warnings.warn("raised", UserWarning, stacklevel=1)

    error = tried.error(warns)
    assert (type(error), error.args) == (UserWarning, ("raised",))


# ---- callbacks


def test_callbacks_that_raise(tried, caplog):
    told = []
    future = tried.submit(abs, -3)
    for error in (ValueError("callback"), OwnBaseException("callback"), SystemExit(3)):
        future.add_done_callback(lambda _, error=error: raise_(error))
    future.add_done_callback(lambda done: told.append(done.result()))
    assert future.result(timeout=60) == 3
    tried.assert_fit()
    assert "callback" in caplog.text


# ---- what lies in __reduce__


class Lies:
    """Claims to be pickled as something that it is not."""

    def __init__(self, *reduced):
        self._reduced = reduced

    def __reduce__(self):
        return self._reduced


class RaisesWhenPickled:
    def __init__(self, error):
        self._error = error

    def __reduce_ex__(self, protocol):
        raise self._error


LIES = {
    "no tuple": ("x",),
    "too many": (1, 2, 3, 4, 5, 6, 7, 8),
    "no function": (3, ()),
    "no arguments": (abs, 3),
    "wrong arguments": (abs, ("x",)),
    "raises": (raise_, (ValueError("lie"),)),
    "exits": (raise_, (SystemExit(3),)),
    "interrupts": (raise_, (KeyboardInterrupt(),)),
    "base exception": (raise_, (OwnBaseException("lie"),)),
    "state that cannot be set": (object, (), {"x": 1}),
    "unknown module": (copyreg.__newobj__, (3,)),
}


@pytest.mark.parametrize("what", LIES)
def test_a_result_that_lies(tried, what):
    error = tried.error(lambda: Lies(*LIES[what]))
    assert type(error) is SerializationError


@pytest.mark.parametrize("what", LIES)
def test_an_argument_that_lies(tried, what):
    assert type(tried.error(abs, Lies(*LIES[what]))) is SerializationError


@pytest.mark.parametrize("error", [ValueError("lie"), RecursionError("lie"), OwnBaseException("lie"), SystemExit(3)])
def test_a_result_whose_pickling_raises(tried, error):
    found = tried.error(RaisesWhenPickled, error)
    assert type(found) is SerializationError
    assert "cannot be pickled" in str(found)
