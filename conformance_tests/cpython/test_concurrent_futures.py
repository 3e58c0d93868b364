"""CPython's own tests of executors, as its `test` package has them, with `WrenExecutor` as the executor.

The package is there in some interpreters and taken out of others; `interpreters.py` looks for one. 3.11 has one module,
later versions a package.
"""

from __future__ import annotations

from concurrent import futures

import pytest

from wren_backends import WrenError, WrenExecutor
from wren_backends.executor import InterruptibleFuture

try:
    from test.test_concurrent_futures import (
        executor,
        test_as_completed,
        test_deadlock,
        test_future,
        test_init,
        test_process_pool,
        test_shutdown,
        test_wait,
        util,
    )
except ImportError:  # before 3.12
    from test import test_concurrent_futures as util

    executor = test_as_completed = test_deadlock = test_future = test_init = util
    test_process_pool = test_shutdown = test_wait = util


class Wren(WrenExecutor):
    """The executor as its tests make it: with a context of `multiprocessing`, which it has no use for."""

    def __init__(self, max_workers=None, *args, mp_context=None, **kwargs):
        super().__init__(max_workers, *args, **kwargs)


class WrenMixin(util.ExecutorMixin):
    executor_type = Wren
    ctx = "spawn"


class WithoutContext(util.ExecutorMixin):
    """As a thread pool: it logs in this process that an initializer failed, and ends without `multiprocessing`."""

    executor_type = Wren


@pytest.fixture(autouse=True)
def in_our_words(monkeypatch):
    """Names that these tests look up in their modules: the class that stands for a dead worker, the one imported."""
    monkeypatch.setattr(test_deadlock, "BrokenProcessPool", WrenError)
    monkeypatch.setattr(test_process_pool, "BrokenProcessPool", WrenError)
    run = test_shutdown.assert_python_ok

    def assert_python_ok(*arguments, **environment):
        *options, script = arguments
        script = script.replace("from concurrent.futures import Wren", "from wren_backends import WrenExecutor as Wren")
        return run(*options, script.replace("mp_context=context", ""), **environment)

    monkeypatch.setattr(test_shutdown, "assert_python_ok", assert_python_ok)


class TestExecutor(WrenMixin, test_process_pool.ProcessPoolExecutorTest, util.BaseTestCase):
    pass


class TestWait(WrenMixin, test_wait.WaitTests, util.BaseTestCase):
    pass


class TestAsCompleted(WrenMixin, test_as_completed.AsCompletedTests, util.BaseTestCase):
    pass


class TestShutdown(WithoutContext, test_shutdown.ExecutorShutdownTest, util.BaseTestCase):
    pass


class TestInitializer(WithoutContext, test_init.InitializerMixin, util.BaseTestCase):
    pass


class TestFailingInitializer(WithoutContext, test_init.FailingInitializerMixin, util.BaseTestCase):
    pass


class TestDeadlock(WrenMixin, test_deadlock.ExecutorDeadlockTest, util.BaseTestCase):
    TIMEOUT = 60.0


class TestFuture(test_future.FutureTests):
    """The futures that `submit` returns, callbacks among them."""

    @pytest.fixture(autouse=True)
    def futures_of_ours(self, monkeypatch):
        def make(state=futures._base.PENDING, exception=None, result=None):
            made = InterruptibleFuture(lambda: None)
            made._state, made._exception, made._result = state, exception, result
            return made

        monkeypatch.setattr(test_future, "Future", make)
        monkeypatch.setattr(test_future, "create_future", make)
