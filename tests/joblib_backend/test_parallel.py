"""The backend "wren" is what joblib asks of a backend: results, errors, time limits, generators, nesting, sharing."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_backend, parallel_config
from signals import mark, marks, wait_for

from lambda_worker.protocol import IN_WORKER_VARIABLE
from wren_backends import BrokenWrenExecutor
from wren_backends import executor as executor_module
from wren_backends.joblib import WrenBackend

pytestmark = pytest.mark.usefixtures("cloud")

TASK_ERROR = "the task to send"
SOON_S = 20


def square(x):
    return x * x


def where():
    return bool(os.environ.get(IN_WORKER_VARIABLE))


def shared_counts(name):
    """A counter, summed over the executors that backends share."""
    return sum(one.journal.counts.get(name, 0) for one in executor_module._shared.values())


def wren(**more):
    return Parallel(**{"n_jobs": 2, "backend": "wren", **more})


def put(out, where, value):
    out[where] = value


# ---- how it is chosen


def test_import_registers_it():
    source = "import wren_backends, joblib.parallel; print(joblib.parallel.BACKENDS['wren'].__name__)"
    assert subprocess.check_output([sys.executable, "-c", source], text=True) == "WrenBackend\n"


def test_import_starts_nothing():
    source = "import sys, threading, wren_backends; print(threading.active_count(), *sys.modules)"
    count, *modules = subprocess.check_output([sys.executable, "-c", source], text=True).split()
    assert count == "1"
    assert not {"boto3", "httptools", "wren_backends.executor"} & set(modules)


@pytest.mark.parametrize(
    "choose",
    [
        lambda: parallel_backend("wren"),
        lambda: parallel_backend("wren", n_jobs=2),
        lambda: parallel_config("wren"),
        lambda: parallel_config(backend="wren", n_jobs=-1),
    ],
)
def test_ways_to_choose_it(choose):
    with choose():
        assert Parallel()(delayed(square)(n) for n in range(10)) == [n * n for n in range(10)]
        assert all(Parallel()(delayed(where)() for _ in range(3)))


def test_named_in_parallel():
    assert wren()(delayed(square)(n) for n in range(10)) == [n * n for n in range(10)]
    assert all(wren()(delayed(where)() for _ in range(3)))


def test_n_jobs():
    cpus = max(2, os.cpu_count())
    with parallel_config(backend="wren"):
        assert joblib.effective_n_jobs() == joblib.effective_n_jobs(-1) == cpus
        assert joblib.effective_n_jobs(3) == 3
        assert joblib.effective_n_jobs(-cpus - 5) == 1
        with pytest.raises(ValueError, match="n_jobs == 0"):
            joblib.effective_n_jobs(0)
    with parallel_config(backend="wren", n_jobs=None):
        assert joblib.effective_n_jobs(None) == Parallel()._effective_n_jobs() == cpus
    assert WrenBackend().effective_n_jobs(n_jobs=None) == cpus


@pytest.mark.parametrize(("n_jobs", "remote"), [(-1, True), (2, True), (3, True), (1, False)])
def test_n_jobs_of_parallel(n_jobs, remote):
    assert wren(n_jobs=n_jobs)(delayed(where)() for _ in range(3)) == [remote] * 3


def test_n_jobs_none_is_the_contexts():
    with parallel_config(backend="wren"):
        assert Parallel(n_jobs=None)(delayed(where)() for _ in range(3)) == [True] * 3


def test_n_jobs_0_is_refused():
    with pytest.raises(ValueError, match="n_jobs == 0"):
        wren(n_jobs=0)(delayed(square)(n) for n in range(3))


def test_sharedmem_stays_here():
    seen = []
    with parallel_config(backend="wren"):
        Parallel(n_jobs=2, require="sharedmem")(delayed(seen.append)(n) for n in range(5))
    assert sorted(seen) == list(range(5))


def test_parameters_in_the_context(tmp_path):
    with parallel_config(backend="wren", mode="s3", n_jobs=2, retries=1):
        tried = str(tmp_path / "tried")
        assert Parallel()(delayed(second_time)(tried) for _ in range(1)) == ["now"]
    assert marks(tried) == 2
    assert any(config.mode == "s3" and config.retries == 1 for config, _ in executor_module._shared)


def second_time(path):
    mark(path)
    if marks(path) < 2:
        raise ValueError("not yet")
    return "now"


def test_unknown_parameters_are_refused():
    with pytest.raises(ValueError, match="no_such_setting"), parallel_config(backend="wren", no_such_setting=3):
        Parallel(n_jobs=2)(delayed(square)(n) for n in range(3))


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match="mode='x'"), parallel_config(backend="wren", mode="x"):
        Parallel(n_jobs=2)(delayed(square)(n) for n in range(3))


def test_initializer(tmp_path):
    ran = str(tmp_path / "ran")
    with parallel_config(backend="wren", n_jobs=2, initializer=mark, initargs=(ran,)):
        assert Parallel()(delayed(square)(n) for n in range(10)) == [n * n for n in range(10)]
    assert marks(ran) in (1, 2)


def test_an_initializer_of_parallel():
    def told(number):
        os.environ["TOLD"] = str(number)

    def was_told():
        return os.environ.get("TOLD")

    assert set(wren(initializer=told, initargs=(7,))(delayed(was_told)() for _ in range(6))) == {"7"}
    with parallel_config(backend="wren", n_jobs=2, initializer=told, initargs=[8]):
        assert set(Parallel()(delayed(was_told)() for _ in range(6))) == {"8"}
        assert set(Parallel(initargs=(np.arange(3),))(delayed(was_told)() for _ in range(6))) == {"[0 1 2]"}


def test_a_failing_initializer():
    def fails():
        raise ValueError("bad start")

    with (
        parallel_config(backend="wren", n_jobs=2, initializer=fails),
        pytest.raises(BrokenWrenExecutor, match="bad start"),
    ):
        Parallel()(delayed(square)(n) for n in range(10))


def test_writes_to_a_memory_mapped_argument_are_warned_of_once_per_call(tmp_path):
    out = np.memmap(tmp_path / "out.mm", dtype=float, shape=(8,), mode="w+")
    parallel = wren()
    for view in (out, out[2:], np.asarray(out)):
        with pytest.warns(UserWarning, match=r"argument 'out' of .*\.put .* Return the values") as caught:
            parallel(delayed(put)(where=n, out=view, value=1.0) for n in range(6))
        assert len(caught) == 1
    assert not out.any()


@pytest.mark.parametrize("mode", ["r", "c"])
@pytest.mark.filterwarnings("error")
def test_a_memory_mapped_argument_that_no_process_writes_through_is_not_warned_of(tmp_path, mode):
    np.arange(8.0).tofile(tmp_path / "in.mm")
    data = np.memmap(tmp_path / "in.mm", dtype=float, shape=(8,), mode=mode)
    assert wren()(delayed(np.sum)(data) for _ in range(3)) == [28.0] * 3


def test_inner_max_num_threads():
    def limits():
        import threadpoolctl

        return (
            [os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")],
            {one["num_threads"] for one in threadpoolctl.threadpool_info()},
        )

    with parallel_config(backend="wren", n_jobs=2, inner_max_num_threads=1):
        for variables, threads in Parallel()(delayed(limits)() for _ in range(2)):
            assert variables == ["1", "1", "1"]
            assert threads <= {1}
    assert Parallel(2, backend="wren")(delayed(os.environ.get)("MKL_NUM_THREADS") for _ in range(2)) == [None, None]


# ---- results


@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_order(return_as):
    results = wren(return_as=return_as)(delayed(square)(n) for n in range(300))
    assert list(results) == [n * n for n in range(300)]


def test_unordered(gate):
    work = [delayed(gate.hold)("held"), delayed(square)(3)]
    results = wren(return_as="generator_unordered", batch_size=1, timeout=SOON_S)(work)
    try:
        assert next(results) == 9
    finally:
        gate.open()
    assert list(results) == ["held"]


def test_generators_are_lazy_about_results(gate):
    work = [delayed(square)(3), delayed(gate.hold)("held")]
    results = wren(return_as="generator", batch_size=1, timeout=SOON_S)(work)
    try:
        assert next(results) == 9
    finally:
        gate.open()
    assert list(results) == ["held"]


def test_nothing_to_do():
    assert wren()([]) == []


def test_batches(tmp_path):
    assert wren(batch_size=7)(delayed(square)(n) for n in range(50)) == [n * n for n in range(50)]


def test_trivial_tasks_are_batched():
    before = shared_counts("call.submitted")
    assert wren()(delayed(square)(n) for n in range(5000)) == [n * n for n in range(5000)]
    assert shared_counts("call.submitted") - before < 2500


def test_pre_dispatch_limits_what_is_read(gate):
    read = []

    def work():
        for number in range(10):
            read.append(number)
            yield delayed(gate.hold)(number)

    results = wren(return_as="generator", batch_size=1, pre_dispatch=3)(work())
    gate.wait_entered(1)
    assert len(read) <= 4
    gate.open()
    assert list(results) == list(range(10))


def test_two_generators_at_once():
    with parallel_config(backend="wren", n_jobs=2):
        first = Parallel(return_as="generator")(delayed(square)(n) for n in range(40))
        second = Parallel(return_as="generator")(delayed(pow)(n, 3) for n in range(40))
        pairs = list(zip(first, second, strict=True))
    assert pairs == [(n**2, n**3) for n in range(40)]


def test_an_abandoned_generator_does_not_disturb_another(gate):
    with parallel_config(backend="wren", n_jobs=2):
        first = Parallel(return_as="generator", batch_size=1)(delayed(square)(n) for n in range(20))
        assert next(first) == 0
        second = Parallel(return_as="generator", batch_size=1, pre_dispatch="all")(
            delayed(gate.hold)(n) for n in range(10)
        )
        first.close()
        gate.open()
        assert list(second) == list(range(10))


def test_quick_tasks_do_not_wait_for_slow_ones_of_another_parallel(gate):
    """How long one function takes says nothing about another, so the two must not travel together."""
    with parallel_config(backend="wren", n_jobs=2):
        Parallel()(delayed(square)(n) for n in range(100))
        quick = Parallel(return_as="generator", batch_size=1, timeout=SOON_S)(delayed(square)(n) for n in range(4))
        slow = Parallel(return_as="generator", batch_size=1, pre_dispatch="all")(
            delayed(gate.hold)(n) for n in range(10)
        )
        try:
            assert next(quick) == 0
        finally:
            gate.open()
        assert list(slow) == list(range(10))
        assert list(quick) == [1, 4, 9]


def test_durations_are_known_by_function():
    with parallel_config(backend="wren", n_jobs=2, retries=3):  # an executor that no other test uses
        Parallel()(delayed(square)(n) for n in range(20))
        Parallel()(delayed(pow)(n, 2) for n in range(20))
    (executor,) = [one for (config, _), one in executor_module._shared.items() if config.retries == 3]
    assert len(executor._dispatcher._engine._schedule._durations) == 2


def test_from_threads():
    results = {}

    def run(number):
        results[number] = wren()(delayed(pow)(n, number) for n in range(30))

    threads = [threading.Thread(target=run, args=(number,)) for number in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [n**number for n in range(30)] for number in (2, 3)}


def test_printed_text_and_warnings_are_shown_here(capsys):
    def speaks(number):
        import warnings

        print("printed", number)
        warnings.warn(f"warned {number}", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="warned 1"):
        wren()(delayed(speaks)(n) for n in range(2))
    assert sorted(capsys.readouterr().out.splitlines()) == ["printed 0", "printed 1"]


# ---- errors and time limits


class OwnError(Exception):
    pass


def fail_at(number, bad):
    if number == bad:
        raise OwnError("bad number", number)
    return number


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_an_exception_comes_back_as_itself_with_its_remote_cause(return_as):
    with pytest.raises(OwnError) as caught:
        list(wren(return_as=return_as)(delayed(fail_at)(n, 5) for n in range(20)))
    assert caught.value.args == ("bad number", 5)
    assert type(caught.value.__cause__).__name__ == "_RemoteTraceback"
    assert "in fail_at" in str(caught.value.__cause__)


def test_batches_that_an_abort_left_over_are_not_run_by_the_next_call():
    """What joblib has cut into batches but not sent it keeps, and would put before the next call's."""
    with wren(batch_size=1) as parallel:
        with pytest.raises(OwnError):
            parallel(delayed(fail_at)(n, 5) for n in range(20))
        assert parallel(delayed(square)(n) for n in range(20)) == [n * n for n in range(20)]


def test_after_an_exception_all_goes_on():
    with wren(pre_dispatch="all") as parallel:
        for _ in range(3):
            with pytest.raises(OwnError):
                parallel(delayed(fail_at)(n, 5) for n in range(20))
            assert parallel(delayed(square)(n) for n in range(20)) == [n * n for n in range(20)]


def test_an_exception_while_the_tasks_are_made():
    def work():
        yield delayed(square)(1)
        raise OwnError("in the generator")

    with pytest.raises(OwnError, match="in the generator"):
        wren()(work())
    assert wren()(delayed(square)(n) for n in range(3)) == [0, 1, 4]


def test_after_an_abort_what_waits_is_not_run(gate):

    def work(number):
        if number == 0:
            raise OwnError("first")
        gate.hold(number)

    with pytest.raises(OwnError):
        wren(batch_size=1, pre_dispatch="all", timeout=SOON_S)(delayed(work)(n) for n in range(200))
    gate.open()
    assert wren()(delayed(square)(n) for n in range(3)) == [0, 1, 4]
    assert marks(gate.entered) < 100


def test_timeout(gate):
    with pytest.raises(multiprocessing.TimeoutError):
        wren(timeout=0.3)(delayed(gate.hold)(n) for n in range(4))
    gate.open()
    assert wren(timeout=60)(delayed(square)(n) for n in range(3)) == [0, 1, 4]


@pytest.mark.parametrize(
    "make", [threading.Lock, lambda: [threading.Lock()] * 2000], ids=["argument", "in a large list"]
)
def test_a_task_that_cannot_be_pickled(make):
    with pytest.raises(pickle.PicklingError, match=TASK_ERROR):
        wren()(delayed(id)(make()) for _ in range(5))
    assert wren()(delayed(square)(n) for n in range(3)) == [0, 1, 4]


def test_a_function_that_cannot_be_pickled():
    lock = threading.Lock()
    with pytest.raises(pickle.PicklingError, match=TASK_ERROR):
        wren()(delayed(lambda x: lock)(n) for n in range(5))


def test_a_task_that_cannot_be_pickled_comes_late():
    """By then `submit` is called in a thread of ours, where an exception would be lost."""
    with pytest.raises(pickle.PicklingError, match=TASK_ERROR):
        wren(batch_size=1)(delayed(id)(threading.Lock() if n == 30 else n) for n in range(40))


def test_a_result_that_cannot_be_pickled():
    with pytest.raises(pickle.PicklingError, match="its result"):
        wren()(delayed(threading.Lock)() for _ in range(5))


# ---- nesting


def nested(backend, number):
    with parallel_config(backend=backend) if backend else parallel_config():
        return where(), Parallel(n_jobs=2)(delayed(square)(n) for n in range(number))


@pytest.mark.parametrize("backend", [None, "wren", "threading"])
def test_parallel_in_a_call_stays_in_its_environment(cloud, backend):
    expected = [(True, [n * n for n in range(number)]) for number in range(4)]
    before = cloud.stats()["lambda"]["invocations"]
    assert wren(batch_size=1)(delayed(nested)(backend, number) for number in range(4)) == expected
    assert cloud.stats()["lambda"]["invocations"] - before <= 4


def test_wren_named_with_parameters_in_a_call():
    def inner(number):
        with parallel_config(backend="wren", mode="s3"):
            return Parallel(n_jobs=2)(delayed(square)(n) for n in range(number))

    assert wren()(delayed(inner)(number) for number in range(3)) == [[], [0], [0, 1]]


def test_nesting_here():
    def outer(number):
        return Parallel(n_jobs=2, backend="wren")(delayed(square)(n) for n in range(number))

    with parallel_config(backend="threading", n_jobs=2):
        assert Parallel()(delayed(outer)(number) for number in range(4)) == [[], [0], [0, 1], [0, 1, 4]]


# ---- large arguments


def test_a_large_array_is_uploaded_once():
    array = np.random.default_rng(1).random(40_000)
    before = shared_counts("blob.uploaded")
    totals = wren(batch_size=1)(delayed(lambda x, n: x.sum() + n)(array, n) for n in range(12))
    assert totals == [array.sum() + n for n in range(12)]
    assert shared_counts("blob.uploaded") - before == 1


def test_an_array_is_hashed_once_within_one_parallel(monkeypatch):
    from lambda_worker import codec

    array = np.random.default_rng(2).random(300_000)
    hashed = []
    digest = codec.digest

    def counting(data):
        hashed.append(len(data))
        return digest(data)

    monkeypatch.setattr(codec, "digest", counting)
    wren(batch_size=1)(delayed(np.sum)(array) for _ in range(8))
    assert hashed.count(array.nbytes) == 2  # the array, and the copy of it that is sent


def test_an_array_changed_between_two_parallels_is_seen_changed():
    array = np.zeros(300_000)
    with wren() as parallel:
        assert parallel(delayed(np.max)(array) for _ in range(2)) == [0, 0]
        array[:] = 5
        assert parallel(delayed(np.max)(array) for _ in range(2)) == [5, 5]


def writable(array):
    return array.flags.writeable


@pytest.mark.parametrize(
    ("parameters", "small", "large"),
    [({}, True, False), ({"max_nbytes": None}, True, True), ({"max_nbytes": "100K"}, False, False)],
)
def test_large_arrays_are_read_only_as_memmaps_are(parameters, small, large):
    arrays = [np.zeros(50_000), np.zeros(300_000)]  # 0.4 and 2.4 MB
    assert wren(**parameters)(delayed(writable)(array) for array in arrays) == [small, large]


def test_a_big_list_is_uploaded_once():
    texts = [f"text number {number}" for number in range(30_000)]
    before = shared_counts("blob.uploaded")
    found = wren(batch_size=1)(delayed(lambda all_of, n: all_of[n])(texts, n) for n in range(12))
    assert found == texts[:12]
    assert shared_counts("blob.uploaded") - before == 1


def test_nothing_is_kept_after_a_parallel():
    import gc
    import weakref

    array = np.zeros(300_000)
    kept = weakref.ref(array)
    wren()(delayed(np.sum)(array) for _ in range(3))
    del array

    def gone():
        gc.collect()
        return kept() is None

    wait_for(gone)


def interrupted():
    raise KeyboardInterrupt


def test_an_interrupt_in_a_call_ends_the_whole_call_of_parallel():
    with wren() as parallel:
        with pytest.raises(KeyboardInterrupt):
            parallel(delayed(interrupted)() for _ in range(3))
        assert parallel(delayed(square)(n) for n in range(3)) == [0, 1, 4]
