"""Real clusters of dask.distributed, whose workers find the tests' local cloud by themselves."""

import dask
import pytest
from distributed import Client, LocalCluster

from wren_backends.distributed import WrenPlugin


@pytest.fixture(scope="module", autouse=True)
def _settings(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dask"))
    # A cluster looks that long after a worker was lost, and gives up a nanny whose worker is just starting then.
    with dask.config.set({"temporary-directory": folder, "distributed.deploy.lost-worker-timeout": "1h"}):
        yield


@pytest.fixture(scope="module")
def start_cluster(cloud):
    """Start a cluster and register the plugin; it ends with the module's tests."""
    started = []

    def start(plugin=None, **options):
        cluster = LocalCluster(dashboard_address=":0", **options)
        client = Client(cluster, set_as_default=False)
        started.extend((cluster, client))
        client.register_plugin(plugin or WrenPlugin(max_workers=4))
        return client

    yield start
    for one in reversed(started):
        one.close()


@pytest.fixture(scope="module")
def processes(start_cluster):
    """The client of a cluster of one worker process with one thread, minded by a nanny."""
    return start_cluster(n_workers=1, threads_per_worker=1, processes=True)


@pytest.fixture(scope="module")
def threads(start_cluster):
    """The client of a cluster of two workers with one thread each in this process."""
    return start_cluster(n_workers=2, threads_per_worker=1, processes=False)


@pytest.fixture(params=["processes", "threads"])
def client(request):
    """A client of a cluster of each kind."""
    return request.getfixturevalue(request.param)
