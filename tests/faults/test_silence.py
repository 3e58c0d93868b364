"""While nothing gets through, the user is told, once, where it is stuck and for how long that will be borne."""

from dataclasses import replace

import pytest

from wren_backends import InvocationError, ThrottledError, vigil

from .answers import THROTTLED, UNAVAILABLE
from .calls import square
from .proxy import Proxy, answered, invokes

SOON_S = 30.0
QUIET_S = 0.1
BUDGET_S = 3.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(vigil, "QUIET_S", QUIET_S)


@pytest.mark.parametrize(
    ("answer", "error"), [(UNAVAILABLE, InvocationError), (THROTTLED, ThrottledError)], ids=["503", "429"]
)
def test_refusals_in_a_row_are_told_once(path, make, answer, error):
    path.to_lambda.add(answered(answer), invokes, times=None)
    executor = make(retry_budget_s=BUDGET_S)
    with pytest.warns(UserWarning, match="no call has got through") as caught:
        assert type(executor.submit(square, 1).exception(SOON_S)) is error
    (one,) = caught
    assert path.to_lambda.url in str(one.message)
    assert "WREN_RETRY_BUDGET_S" in str(one.message)
    assert "Exception" in str(one.message)
    assert executor.journal.counts["endpoint.silent"] == 1


def test_a_closed_port_is_told(path, make):
    with Proxy(path.to_lambda.url, listening=False) as away:
        executor = make(connection=replace(path.connection, lambda_url=away.url), retry_budget_s=BUDGET_S)
        with pytest.warns(UserWarning, match=f"{away.url}.*Connect call failed"):
            assert type(executor.submit(square, 1).exception(SOON_S)) is InvocationError


@pytest.mark.filterwarnings("error")
def test_a_filter_that_makes_errors_of_warnings_breaks_nothing(path, make):
    path.to_lambda.add(answered(UNAVAILABLE), invokes, times=None)
    executor = make(retry_budget_s=BUDGET_S)
    assert type(executor.submit(square, 1).exception(SOON_S)) is InvocationError
    path.to_lambda.clear()
    assert executor.submit(square, 3).result(SOON_S) == 9
