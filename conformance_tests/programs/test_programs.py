"""Programs that nobody here wrote and that take an executor, a map or joblib, each in its documented way.

These are what `make test` installs anyway: scipy, asyncio, tornado, tqdm, dask, toolz, networkx, scikit-learn.
"""

import asyncio
import math
import os
import threading

import dask
import numpy as np
import pytest
from scipy import integrate, optimize

from wren_backends import WrenExecutor


@pytest.fixture
def executor(mode):
    with WrenExecutor(2, mode=mode) as executor:
        yield executor


def rosenbrock(x):
    return optimize.rosen(x)


def where(number):
    return number, os.environ.get("AWS_LAMBDA_FUNCTION_NAME")


def all_remote(results):
    return all(name for _, name in results)


def test_scipy_differential_evolution(executor):
    """`workers`: "a map-like callable"."""
    found = optimize.differential_evolution(
        rosenbrock, [(0, 2)] * 2, maxiter=6, popsize=6, rng=1, workers=executor.map, updating="deferred", polish=False
    )
    here = optimize.differential_evolution(
        rosenbrock, [(0, 2)] * 2, maxiter=6, popsize=6, rng=1, updating="deferred", polish=False
    )
    np.testing.assert_array_equal(found.x, here.x)
    assert found.nfev == here.nfev


def test_scipy_brute(executor):
    grid = (slice(-2, 2, 0.5), slice(-2, 2, 0.5))
    assert list(optimize.brute(rosenbrock, grid, workers=executor.map, finish=None)) == [1.0, 1.0]


def test_scipy_quad_vec(executor):
    def vector(x):
        return np.array([math.sin(x), x**2])

    value, _ = integrate.quad_vec(vector, 0, math.pi, workers=executor.map)
    np.testing.assert_allclose(value, [2, math.pi**3 / 3])


def test_asyncio_run_in_executor(executor):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(executor, divmod, 1, 0)
        return await asyncio.gather(*(loop.run_in_executor(executor, where, number) for number in range(8)))

    results = asyncio.run(main())
    assert [number for number, _ in results] == list(range(8))
    assert all_remote(results)


def test_asyncio_cancels_what_waits(executor, tmp_path):
    opened = tmp_path / "open"

    def wait_for(path):
        import time

        while not os.path.exists(path):
            time.sleep(0.01)
        return "let through"

    async def main():
        loop = asyncio.get_running_loop()
        held = [loop.run_in_executor(executor, wait_for, str(opened)) for _ in range(2)]
        waiting = loop.run_in_executor(executor, wait_for, str(opened))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        opened.touch()
        return await asyncio.gather(*held)

    assert asyncio.run(main()) == ["let through"] * 2


def test_tornado_run_on_executor(executor):
    from tornado.concurrent import run_on_executor
    from tornado.ioloop import IOLoop

    class Service:
        def __init__(self):
            self.executor = executor

        @run_on_executor
        def ask(self, number):
            return where(number)

        def __reduce__(self):  # the executor stays here
            return object, ()

    def unbound(number):
        return where(number)

    async def main():
        return await IOLoop.current().run_in_executor(executor, unbound, 3), Service().executor is executor

    (number, name), same = asyncio.run(main())
    assert number == 3
    assert name
    assert same


def test_tqdm_over_a_map(executor, capsys):
    from tqdm import tqdm

    assert all_remote(tqdm(executor.map(where, range(20)), total=20))
    assert "20/20" in capsys.readouterr().err


def test_tqdm_process_map(mode, monkeypatch, capsys):
    """`tqdm.contrib.concurrent.process_map` maps on what `concurrent.futures` has under the pool's name."""
    import concurrent.futures

    from tqdm.contrib.concurrent import process_map

    class Pool(WrenExecutor):
        def __init__(self, max_workers=None, initializer=None, initargs=(), **_):
            super().__init__(max_workers, mode=mode)

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Pool)
    assert all_remote(process_map(where, range(6), max_workers=2, chunksize=1))
    assert "6/6" in capsys.readouterr().err


def test_dask_takes_an_executor(executor):
    """Dask's documentation: "any `concurrent.futures.Executor` instance" as scheduler."""
    tasks = [dask.delayed(where)(number) for number in range(6)]
    assert all_remote(dask.compute(*tasks, scheduler=executor))


def test_toolz_parallel_fold(executor):
    from operator import add

    from tlz import reduce
    from tlz.sandbox import fold

    values = list(range(200))
    assert fold(add, values, chunksize=25, map=executor.map) == reduce(add, values)


def test_networkx_all_pairs_over_a_map(executor):
    import networkx

    graph = networkx.karate_club_graph()
    nodes = sorted(graph)
    remote = dict(zip(nodes, executor.map(networkx.closeness_centrality, [graph] * len(nodes), nodes), strict=True))
    assert remote == networkx.closeness_centrality(graph)


def test_threads_of_a_program_share_it(executor):
    found = {}

    def work(name):
        found[name] = list(executor.map(pow, range(10), [2] * 10))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: [n * n for n in range(10)] for name in range(4)}
