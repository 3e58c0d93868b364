"""What calls do to their process harms no later call in it: environments are used again and again."""

import asyncio
import atexit
import builtins
import concurrent.futures
import gc
import locale
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings

import pytest

from wren_backends import WrenExecutor


def square(x):
    return x * x


# ---- processes and threads


def forks(end):
    child = os.fork()
    if not child:
        return end()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def raises():
    raise ValueError("in the child")


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda: os._exit(7), 7),
        (lambda: "what only the parent may answer", 0),
        (raises, 1),
        (lambda: sys.exit(5), 5),
        (lambda: sys.exit("text"), 1),
        (sys.exit, 0),
    ],
)
def test_a_forked_child_ends_where_the_call_ends(abused_in_any_mode, end, status):
    assert abused_in_any_mode.result(forks, end) == status


def test_multiprocessing(abused):
    def pool():
        with multiprocessing.get_context("fork").Pool(2) as processes:
            return processes.map(square, range(5))

    def executor():
        with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as processes:
            return list(processes.map(square, range(5)))

    assert abused.result(pool) == abused.result(executor) == [0, 1, 4, 9, 16]


def test_joblibs_own_processes_and_those_of_an_interpreter(cloud, recwarn):
    """They find the function's packages, and joblib's tracker of resources lives on from call to call."""

    def call():
        from joblib import Parallel, delayed
        from joblib.externals.loky.backend.resource_tracker import _resource_tracker

        found = Parallel(n_jobs=2)(delayed(abs)(-number) for number in range(4))
        child = subprocess.run(
            [sys.executable, "-c", "import numpy; print(numpy.sum([1, 2]))"], check=True, capture_output=True
        )
        return found, child.stdout, os.getpid(), _resource_tracker._pid

    with WrenExecutor(1, calls_per_invocation=1) as executor:
        first, second = [executor.submit(call).result() for _ in range(2)]
    assert first == second
    assert first[:2] == ([0, 1, 2, 3], b"3\n")
    assert [str(one.message) for one in recwarn if "resource_tracker" in str(one.message)] == []


def test_a_child_that_is_left_running(abused):
    def leaves():
        child = os.fork()
        if not child:
            time.sleep(3600)
        return child

    child = abused.result(leaves)
    abused.assert_fit()
    os.kill(child, signal.SIGKILL)


def test_threads_that_are_left_running(abused):
    def leaves():
        def speak():
            while True:
                print("still here")
                time.sleep(0.001)

        threading.Thread(target=speak, daemon=True).start()
        threading.Thread(target=time.sleep, args=(3600,)).start()
        threading.Thread(target=raises).start()

    abused.result(leaves)


def test_an_event_loop_that_is_left_open(abused):
    def leaves():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(asyncio.sleep(0))
        return asyncio.run(asyncio.sleep(0, "done"))

    assert abused.result(leaves) == "done"


# ---- the process itself


def chdir_to_what_is_deleted():
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def ignore_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM, signal.SIGPIPE, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def handle_signals():
    def handler(*_):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, handler)


def trace():
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)


def break_hooks():
    sys.excepthook = threading.excepthook = sys.unraisablehook = sys.displayhook = None


def break_builtins():
    for name in ("len", "isinstance", "str", "type", "dict", "min", "max", "zip", "map", "sum", "getattr", "range"):
        setattr(builtins, name, lambda *_, **__: 0)


def delete_builtins():
    for name in ("len", "tuple", "Exception", "isinstance", "list", "bytes", "memoryview", "open"):
        delattr(builtins, name)


def clear_paths():
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_importer_cache.clear()


def forget_modules():
    for name in [one for one in sys.modules if one.startswith(("lambda_worker", "colorsys", "decimal", "json"))]:
        del sys.modules[name]
    del sys.modules[__name__]


def remove_temporary_files():
    for entry in os.scandir(tempfile.gettempdir()):
        shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)


ABUSES = {
    "chdir": lambda: os.chdir("/"),
    "chdir to what is deleted": chdir_to_what_is_deleted,
    "environment cleared": os.environ.clear,
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "umask": lambda: os.umask(0o777) and None,
    "signals ignored": ignore_signals,
    "signals handled": handle_signals,
    "recursion limit lowered": lambda: sys.setrecursionlimit(90),
    "recursion limit raised": lambda: sys.setrecursionlimit(10**6),
    "garbage collection off": gc.disable,
    "switch interval": lambda: sys.setswitchinterval(0.5),
    "tracing": trace,
    "hooks": break_hooks,
    "builtins broken": break_builtins,
    "builtins deleted": delete_builtins,
    "paths cleared": clear_paths,
    "modules forgotten": forget_modules,
    "temporary files removed": remove_temporary_files,
    "logging": lambda: logging.disable() or logging.shutdown(),
    "warnings": lambda: warnings.filterwarnings("error"),
    "random": lambda: random.seed(0),
    "atexit": lambda: atexit.register(raises) and None,
    "argv": sys.argv.clear,
    "getpid": lambda: setattr(os, "getpid", lambda: 1),
}


@pytest.mark.parametrize("what", ABUSES)
def test_what_is_changed(abused, what):
    abused.result(ABUSES[what])


def test_a_print_of_the_users_own_stays(abused):
    """As it would in the processes of a pool: there are good reasons to replace some builtins."""

    def replaces():
        before = builtins.print
        builtins.print = lambda *values: before("replaced", *values)

    abused.result(replaces)
    assert abused.result(lambda: builtins.print.__qualname__) == replaces.__qualname__ + ".<locals>.<lambda>"


# ---- its files


def set_streams_to(value):
    sys.stdout = sys.stderr = sys.stdin = value


def close_streams():
    for stream in (sys.stdin, sys.__stdin__, sys.stdout, sys.__stdout__, sys.stderr, sys.__stderr__):
        stream.close()


FILES = {
    "streams gone": lambda: set_streams_to(None),
    "streams without write": lambda: set_streams_to(3),
    "streams closed": close_streams,
    "stdin closed": lambda: os.close(0),
    "stdout closed": lambda: os.close(1),
    "stderr closed": lambda: os.close(2),
    "all three closed": lambda: os.closerange(0, 3),
    "stdout elsewhere": lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 1) and None,
}


@pytest.mark.parametrize("what", FILES)
def test_what_is_done_to_files(abused, what):
    abused.result(FILES[what])


def test_a_full_disk_is_the_users_oserror(abused):
    def fills():
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    error = abused.error(fills)
    assert type(error) is OSError
    assert (error.errno, error.strerror) == (28, "No space left on device")
    assert "in fills" in str(error.__cause__)


def test_large_files_in_the_temporary_folder(abused):
    def writes():
        with tempfile.NamedTemporaryFile(delete=False) as file:
            os.posix_fallocate(file.fileno(), 0, 600 << 20)
            return os.fstat(file.fileno()).st_size

    assert abused.result(writes) == 600 << 20


def test_no_file_descriptors_left_for_the_call_itself(abused):
    def exhausts():
        held = []
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        finally:
            for one in held:
                os.close(one)

    error = abused.error(exhausts)
    assert (type(error), error.errno) == (OSError, 24)
