"""The packages that this is for, downloaded as they are: a layer and an archive of some hundred megabytes."""

import pytest

from wren_backends.deploy import packages, requirements

from . import calls

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

WORK = ["numpy", "scipy", "scikit-learn", "pandas", "joblib"]
FOUND = {"frame": {1: 1.5, 2: 3.0}, "dask": 45, "joblib": [0, 1, 2]}


@pytest.mark.parametrize(
    ("dask", "as_layer", "place"),
    [("dask[array]", True, "/opt/"), ("dask[array,dataframe]", False, "/wren-packages-")],
    ids=["layer", "archive"],
)
def test_the_scientific_stack_runs_from_its_packages(target, publish, executor_with, dask, as_layer, place):
    """With dask's data frames comes pyarrow, and with it more than the 250 MB that a layer may have."""
    built = packages.build(requirements.from_names([*WORK, dask]), target, print)
    assert built.fits_layer is as_layer
    assert built.trimmed_bytes < 0.9 * built.fetched_bytes
    published = publish(built, "science")
    print(published.summary)
    with executor_with(published) as executor:
        found, files = executor.submit(calls.science).result(300)
    assert found.pop("score") > 0.8
    assert found == FOUND
    assert all(place in file for file in files), files
