"""As `test_programs.py`, with programs of the extra `programs`; `make conformance SUITE=programs` installs it."""

import os

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.datasets import make_blobs, make_classification, make_regression

from wren_backends import WrenExecutor


@pytest.fixture
def executor(mode):
    with WrenExecutor(2, mode=mode) as executor:
        yield executor


@pytest.fixture
def on_joblib(mode):
    with parallel_config(backend="wren", n_jobs=2, mode=mode):
        yield


def parabola(x):
    assert os.environ["AWS_LAMBDA_FUNCTION_NAME"]
    return x**2


def log_probability(x):
    return -0.5 * float(np.sum(x**2))


def from_unit_cube(u):
    return 10.0 * u - 5.0


def test_adaptive_takes_an_executor(executor):
    """`adaptive.BlockingRunner(executor=)`."""
    import adaptive

    learner = adaptive.Learner1D(parabola, (-1, 1))
    adaptive.BlockingRunner(learner, executor=executor, ntasks=2, npoints_goal=12)
    assert learner.npoints >= 12
    assert all(y == x**2 for x, y in learner.data.items())


def test_emcee_takes_a_pool(executor):
    """`EnsembleSampler(pool=)`: "an object with a `map` method"."""
    import emcee

    def chain(pool):
        sampler = emcee.EnsembleSampler(8, 2, log_probability, pool=pool)
        sampler.random_state = np.random.RandomState(3).get_state()
        sampler.run_mcmc(np.random.RandomState(0).normal(size=(8, 2)), 10)
        return sampler.get_chain()

    np.testing.assert_array_equal(chain(executor), chain(None))


def test_dynesty_takes_a_pool(executor):
    """`NestedSampler(pool=, queue_size=)`: "any object with a `map` method"."""
    from dynesty import NestedSampler

    sampler = NestedSampler(
        log_probability,
        from_unit_cube,
        2,
        nlive=30,
        rstate=np.random.default_rng(0),
        pool=executor,
        queue_size=4,
    )
    sampler.run_nested(maxiter=60, print_progress=False)
    assert np.isfinite(sampler.results.logz[-1])


def test_mlxtend_feature_selection(on_joblib):
    from mlxtend.feature_selection import SequentialFeatureSelector
    from sklearn.linear_model import LinearRegression

    X, y = make_regression(60, 5, n_informative=2, random_state=0)
    selector = SequentialFeatureSelector(LinearRegression(), k_features=2, cv=3, n_jobs=2).fit(X, y)
    assert len(selector.k_feature_idx_) == 2


def test_imbalanced_learn_forest(on_joblib):
    from imblearn.ensemble import BalancedRandomForestClassifier

    X, y = make_classification(120, weights=[0.9], random_state=0)

    def forest(n_jobs):
        return BalancedRandomForestClassifier(6, n_jobs=n_jobs, random_state=0).fit(X, y).predict(X)

    np.testing.assert_array_equal(forest(2), forest(1))


def test_hdbscan(on_joblib):
    import hdbscan

    X, _ = make_blobs(300, centers=3, n_features=20, random_state=0)
    labels = hdbscan.HDBSCAN(algorithm="boruvka_balltree", core_dist_n_jobs=2).fit_predict(X)
    assert len(set(labels) - {-1}) == 3
