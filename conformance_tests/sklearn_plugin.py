"""Runs scikit-learn's own tests inside `parallel_config(backend="wren")`."""

from __future__ import annotations

import pytest
from joblib import parallel_config

import wren_backends  # noqa: F401  registers the backend


@pytest.fixture(autouse=True)
def on_wren():
    with parallel_config(backend="wren", n_jobs=2):
        yield
