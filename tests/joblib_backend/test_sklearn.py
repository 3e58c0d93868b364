"""scikit-learn gives on this backend what it gives in sequence, and says here what it says there."""

import warnings

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

pytestmark = pytest.mark.usefixtures("cloud")


@pytest.fixture(scope="module")
def data():
    return make_classification(200, 8, random_state=0)


def on_wren():
    return parallel_config(backend="wren", n_jobs=2)


def test_grid_search(data):
    search = GridSearchCV(LogisticRegression(), {"C": [0.01, 0.1, 1.0]}, cv=3)
    expected = search.fit(*data).cv_results_["mean_test_score"]
    with on_wren():
        found = search.fit(*data)
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], expected)
    assert found.best_params_["C"] in (0.01, 0.1, 1.0)


def test_random_forest(data):
    forest = RandomForestClassifier(12, random_state=0)
    expected = forest.fit(*data).predict_proba(data[0])
    with on_wren():
        found = forest.fit(*data).predict_proba(data[0])
    np.testing.assert_array_equal(found, expected)


def test_warnings_are_reissued_here(data):
    with on_wren(), pytest.warns(ConvergenceWarning):
        cross_val_score(LogisticRegression(max_iter=1, C=1000.0), *data, cv=2)


def test_ignored_warnings_stay_ignored(data):
    with on_wren(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ConvergenceWarning)
        cross_val_score(LogisticRegression(max_iter=1, C=1000.0), *data, cv=2)
    assert not [one for one in caught if issubclass(one.category, ConvergenceWarning)]


def test_verbose_output_is_shown_here(data, capsys):
    with on_wren():
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2, verbose=3).fit(*data)
    assert capsys.readouterr().out.count("[CV") == 4


class Fragile(ClassifierMixin, BaseEstimator):
    """An estimator of the user's own that cannot be fitted."""

    def fit(self, X, y):
        raise ArithmeticError("cannot be fitted")


def test_an_error_of_an_estimator_arrives(data):
    with on_wren(), pytest.raises(ArithmeticError, match="cannot be fitted"):
        cross_val_score(Fragile(), *data, cv=2, error_score="raise")
