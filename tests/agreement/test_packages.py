"""Client and function compare their packages at the first call: what cannot work is refused, the rest is said once."""

import io
import json
import warnings
import zipfile

import numpy as np
import pytest
from as_on_aws import client_of, deploy_function

from lambda_worker import agreement
from lambda_worker.agreement import hard_differences, soft_differences
from wren_backends import ProtocolMismatchError, WrenExecutor
from wren_backends import packages as packages_module
from wren_backends.deploy.package import function_zip


@pytest.fixture
def function_with(cloud, monkeypatch):
    """Deploy, and configure, a function on which a distribution has another version than here."""
    monkeypatch.setattr(packages_module, "_told", set())

    def deploy(name, version):
        environment = deploy_function(cloud, f"other-{name}")
        packed = io.BytesIO(function_zip())
        with zipfile.ZipFile(packed, "a") as bundle:
            info = zipfile.ZipInfo(f"{name.replace('-', '_')}-{version}.dist-info/METADATA")
            info.external_attr = 0o644 << 16
            bundle.writestr(info, f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        client_of(cloud, "lambda").update_function_code(FunctionName=f"other-{name}", ZipFile=packed.getvalue())
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)

    return deploy


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_another_major_version_of_numpy_is_an_error_that_says_what_to_do(function_with, mode):
    function_with("numpy", "1.26.4")
    with WrenExecutor(1, mode=mode) as executor:
        error = executor.submit(len, "abc").exception()
    assert isinstance(error, ProtocolMismatchError)
    assert f"the client has numpy {np.__version__}, this function numpy 1.26.4" in str(error)
    assert "`wren deploy_lambda --environment`" in str(error)
    assert "take the function's here: `pip install 'numpy==1.26.4'`" in str(error)


def test_a_small_difference_is_one_warning_for_all_executors(function_with):
    function_with("joblib", "1.2.0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            with WrenExecutor(1) as executor:
                assert list(executor.map(len, ["a", "bb", "ccc"])) == [1, 2, 3]
    (text,) = [str(one.message) for one in caught if "this function" in str(one.message)]
    assert "joblib 1.2.0" in text
    assert "`wren deploy_lambda --environment`" in text
    assert "`pip install 'joblib==1.2.0'`" in text


def test_it_is_asked_once_for_a_job_and_costs_nothing_after(on_aws_executor):
    sizes = []
    before = 0
    for _ in range(3):
        assert on_aws_executor.submit(len, "abc").result() == 3
        sent = on_aws_executor.journal.counts["bytes.sent"]
        sizes.append(int(sent - before))
        before = sent
    named = json.dumps(agreement.versions(agreement.loaded()))
    assert sizes[1] == pytest.approx(sizes[2], abs=2)  # numbers and times may have a digit more
    assert sizes[0] - sizes[1] == pytest.approx(len(f'"packages": {named}, '), abs=3)


@pytest.fixture
def on_aws_executor(cloud, monkeypatch):
    """An executor on a function whose packages are the client's."""
    for variable, value in deploy_function(cloud, "same-packages").items():
        monkeypatch.setenv(variable, value)
    with WrenExecutor(1) as executor:
        yield executor


def test_where_all_is_the_same_nothing_is_said(on_aws_executor, recwarn):
    assert on_aws_executor.submit(len, "abc").result() == 3
    assert not [one for one in recwarn if "this function" in str(one.message)]


def test_on_the_local_cloud_nothing_is_asked(executor):
    assert executor.submit(len, "abc").result() == 3
    first = executor.journal.counts["bytes.sent"]
    assert executor.submit(len, "abc").result() == 3
    assert executor.journal.counts["bytes.sent"] - first == pytest.approx(first, abs=2)


@pytest.mark.parametrize(
    ("name", "client", "function", "kind"),
    [
        ("numpy", "2.3.1", "2.3.5", "none"),
        ("numpy", "2.3.1", "2.1.0", "soft"),
        ("numpy", "2.3.1", "1.26.4", "hard"),
        ("pandas", "3.0.0rc1", "2.3.0", "hard"),
        ("cloudpickle", "3.1.1", "2.2.1", "hard"),
        ("cloudpickle", "3.1", "3.1.1", "none"),
        ("scikit-learn", "1.7.2", "1.6.0", "soft"),
        ("dask", "2026.1.1", "2025.12.0", "soft"),
        ("torch", "2.4.0+cpu", "2.4.0+cu121", "none"),
        ("joblib", "1!2.0", "2.0", "none"),
        ("joblib", "1.5", "", "none"),
        ("joblib", "1.5", None, "none"),
    ],
)
def test_the_rule(name, client, function, kind):
    functions = {} if function is None else {name: function}
    found = ({name: client}, functions)
    assert bool(hard_differences(*found)) == (kind == "hard")
    assert bool(soft_differences(*found)) == (kind == "soft")


def test_a_distribution_that_is_not_there_has_no_version():
    assert agreement.versions(["numpy", "no-such-distribution"]) == {"numpy": np.__version__}
