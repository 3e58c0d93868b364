"""Each test begins without knowing how long tasks take."""

import pytest

from wren_backends.graph import run
from wren_backends.graph.costs import Costs


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    """What other tests have taught of how long tasks take decides nothing here."""
    monkeypatch.setattr(run, "_costs", Costs())
