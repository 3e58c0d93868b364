"""dask's own contract for scheduler functions, as shipped in `dask.utils_test`, on `wren_get`."""

import dask
import pytest
from dask.utils_test import GetFunctionTestMixin

from wren_backends import wren_get


@pytest.fixture(autouse=True, params=["direct", "s3"])
def mode(request, cloud):
    with dask.config.set(wren={"max_workers": 2, "mode": request.param}):
        yield


class TestGetFunction(GetFunctionTestMixin):
    get = staticmethod(wren_get)
