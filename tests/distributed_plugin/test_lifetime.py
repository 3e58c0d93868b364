"""The plugin on workers that come, go, start anew and get it twice."""

import os
import signal
import threading

import dask
import pytest
from distributed import Client, LocalCluster
from signals import wait_for

from wren_backends import ConfigError
from wren_backends.distributed import WrenPlugin

SOON_S = 60


def on_lambda(value=None):
    return os.environ.get("WREN_IN_WORKER") == "1"


def burst(client, function, *arguments, executor="wren", **options):
    """Submit one task for Lambda."""
    with dask.annotate(executor=executor):
        return client.submit(function, *arguments, pure=False, **options)


def our_threads():
    return [one.name for one in threading.enumerate() if one.name.startswith("wren-")]


def test_a_worker_that_starts_anew_has_the_plugin(processes):
    before = set(processes.run(os.getpid).values())
    processes.restart()
    assert not before & set(processes.run(os.getpid).values())
    assert burst(processes, on_lambda).result(timeout=SOON_S)


def test_tasks_of_a_worker_that_is_killed_run_again(processes, gate):
    held = burst(processes, gate.hold, 7)
    gate.wait_entered()
    (pid,) = processes.run(os.getpid).values()
    os.kill(pid, signal.SIGKILL)
    gate.wait_entered(2)
    gate.open()
    assert held.result(timeout=SOON_S) == 7


def test_a_new_worker_has_the_plugin(start_cluster):
    client = start_cluster(n_workers=1, threads_per_worker=1, processes=False)
    (first,) = client.scheduler_info()["workers"]
    client.cluster.adapt(minimum=2, maximum=2)
    client.wait_for_workers(2, timeout=SOON_S)
    (second,) = set(client.scheduler_info()["workers"]) - {first}
    assert burst(client, on_lambda, workers=[second]).result(timeout=SOON_S)


def test_the_second_registration_counts_and_the_first_ends_what_it_has_sent(start_cluster, gate):
    client = start_cluster(n_workers=1, threads_per_worker=1, processes=False)
    held = burst(client, gate.hold, 1)
    gate.wait_entered()
    client.register_plugin(WrenPlugin(max_workers=2, prefix="second"))
    configs = client.run(lambda dask_worker: dask_worker.executors["wren"]._config.prefix)
    assert set(configs.values()) == {"second"}
    assert burst(client, on_lambda).result(timeout=SOON_S)
    gate.open()
    assert held.result(timeout=SOON_S) == 1


def test_two_plugins_of_different_names(start_cluster):
    client = start_cluster(n_workers=1, threads_per_worker=1, processes=False)
    client.register_plugin(WrenPlugin("other", max_workers=1))
    assert burst(client, on_lambda, executor="other").result(timeout=SOON_S)
    assert burst(client, on_lambda).result(timeout=SOON_S)
    client.unregister_worker_plugin("other")
    assert "Invalid executor 'other'" in str(burst(client, on_lambda, executor="other").exception(timeout=SOON_S))


def test_names_that_are_taken_are_refused(start_cluster):
    with pytest.raises(ConfigError, match="dask's own"):
        WrenPlugin("default")
    with pytest.raises(ConfigError, match="max_worker"):
        WrenPlugin(max_worker=3)
    client = start_cluster(n_workers=1, threads_per_worker=1, processes=False)
    client.run(lambda dask_worker: dask_worker.executors.update(mine=dask_worker.executors["default"]))
    with pytest.raises(ConfigError, match="another name"):
        client.register_plugin(WrenPlugin("mine"))


def test_workers_may_be_given_one_plugin(start_cluster, gate):
    client = start_cluster(
        n_workers=2, threads_per_worker=1, processes=False, plugins={WrenPlugin("given", max_workers=2)}
    )
    first, second = client.scheduler_info()["workers"]
    held = burst(client, gate.hold, 1, executor="given", workers=[first], key="held")
    gate.wait_entered()
    client.retire_workers([second])
    assert burst(client, on_lambda, executor="given").result(timeout=SOON_S)
    gate.open()
    assert held.result(timeout=SOON_S) == 1


def test_a_plugin_that_is_not_used_opens_nothing(cloud):
    before = our_threads()
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(WrenPlugin())
        assert client.submit(on_lambda).result(timeout=SOON_S) is False
        assert our_threads() == before


def test_a_worker_that_ends_waits_for_no_call(cloud, gate):
    before = set(our_threads())
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(WrenPlugin(max_workers=1))
        held = burst(client, gate.hold, 1)
        gate.wait_entered()
        assert set(our_threads()) > before
    assert held.status in ("cancelled", "lost", "pending")
    wait_for(lambda: set(our_threads()) <= before)
