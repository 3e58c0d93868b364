"""Runs many calls while Lambda throttles, fails, loses responses, delivers twice and kills environments.

The proxy that does it runs in a process of its own, so that the memory that is measured is the client's alone.

Settings, so that a right library always passes: a call's attempts end when `max_attempts` environments died under it or
responses were lost. With 2% to 3% of attempts ending so, the default of 3 would fail about one of 40,000 calls; with 8
it is one of 10**12. Refusals (429, 503) have `retry_budget_s`, whose default of 300 s no call comes near to, since a
refusal meets 8% of requests at random. Half of the waves send each call alone, as many faults as calls allow; in the
other half up to 8 calls share an invocation, and its end.
"""

import gc
import multiprocessing
import os
import random
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import psutil
from faults.answers import THROTTLED, UNAVAILABLE
from faults.proxy import Proxy, answered, doubled, invokes, lost

from wren_backends import Config, WrenExecutor
from wren_backends.connection import connect

from .work import answer, work

WAVES = 10
MAX_WORKERS = 8
TOGETHER = 1, 8
FAULTS = (
    ("429", answered(THROTTLED), 0.05),
    ("503", answered(UNAVAILABLE), 0.03),
    ("response lost", lost, 0.01),
    ("delivered twice", doubled, 0.01),
)


@dataclass(frozen=True)
class Report:
    """What a soak came to.

    Attributes:
        wrong: Calls that ended in anything but their right value.
        missing: Calls that never ended.
        twice: Calls whose callback was called more than once.
        injected: How often each fault was done.
        requests: Invocations that reached the proxy.
        rss_mb: The client's memory after each wave of calls.
    """

    mode: str
    calls: int
    wrong: int
    missing: int
    twice: int
    injected: dict[str, int]
    requests: int
    seconds: float
    rss_mb: list[float]


def run(mode, calls, seed=1):
    """Run `calls` calls on the local cloud in one mode."""
    configs = [Config(mode=mode, max_attempts=8, calls_per_invocation=together) for together in TOGETHER]
    base = connect(configs[0])
    told = bytearray(calls)
    wrong, rss_mb = 0, []
    with tempfile.TemporaryDirectory() as folder, faulty(base.lambda_url, seed) as (url, injected):
        begun = time.perf_counter()
        with ExitStack() as stack:
            path = replace(base, lambda_url=url)
            executors = [stack.enter_context(WrenExecutor(MAX_WORKERS, config=one, connection=path)) for one in configs]
            for wave in range(WAVES):
                numbers = range(wave * calls // WAVES, (wave + 1) * calls // WAVES)
                wrong += _wave(executors[wave % len(executors)], numbers, folder, told)
                rss_mb.append(_rss_mb())
        seconds = time.perf_counter() - begun
        injected["environment killed"] = len(os.listdir(folder))
    return Report(
        mode=mode,
        calls=calls,
        wrong=wrong,
        missing=told.count(0),
        twice=sum(times > 1 for times in told),
        requests=injected.pop("requests"),
        injected=dict(injected),
        seconds=seconds,
        rss_mb=rss_mb,
    )


def _wave(executor, numbers, folder, told):
    """Run some calls to their end; returns how many of them went wrong."""

    def tell(n):
        def callback(_):
            told[n] += 1

        return callback

    futures = []
    for n in numbers:
        future = executor.submit(work, n, folder)
        future.add_done_callback(tell(n))
        futures.append(future)
    wrong = 0
    for n, future in zip(numbers, futures, strict=True):
        error = future.exception()
        if error is not None or future.result() != answer(n):
            print(f"call {n}: {error!r}")
            wrong += 1
    return wrong


def _rss_mb():
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


@contextmanager
def faulty(upstream, seed):
    """A proxy to Lambda in another process: its URL, and a counter that has its figures when the context ends."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, upstream, seed))
    process.start()
    figures = Counter()
    try:
        yield ours.recv(), figures
        ours.send("end")
        figures.update(ours.recv())
    finally:
        ours.close()
        process.join()


def _serve(pipe, upstream, seed):
    with Proxy(upstream) as proxy:
        rules = {
            name: proxy.add(fault, invokes, times=None, share=share, rng=random.Random(f"{seed} {name}"))
            for name, fault, share in FAULTS
        }
        pipe.send(proxy.url)
        try:
            pipe.recv()
            pipe.send({**{name: rule.hits for name, rule in rules.items()}, "requests": len(proxy.requests)})
        except EOFError:
            pass  # the client is gone
