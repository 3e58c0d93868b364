"""Calls on functions that have a layer or an archive: from the index to the import, and what goes wrong on the way."""

import io
import json
import zipfile
from pathlib import Path

import blake3
import pytest

from wren_backends import Config, DeploymentError, StorageError
from wren_backends.connection import connect
from wren_backends.deploy import packages, requirements

from . import calls

SOON_S = 60.0
SMALL = ["markupsafe", "pyyaml", "toolz"]
"""Two with compiled code and one without."""

FOLDER = "wren/packages/"


@pytest.fixture(scope="module")
def layer(target):
    return packages.build(requirements.from_names(SMALL), target)


@pytest.fixture(scope="module")
def archive(target):
    """The same packages in a Lambda with little room, so that they do not fit into a layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "UNZIPPED_BYTES", 1000)
        patch.setattr(packages, "_OWN_PIECE_BYTES", 100_000)
        return packages.build(requirements.from_names([f"{name}>0" for name in SMALL]), target)


def check(found, inside):
    text, files, versions, path = found
    assert text == "A: '&lt;b&gt;'\n"
    assert all(inside in file for file in files), files
    assert set(versions) == set(SMALL)
    theirs = [
        entry for entry in path if Path(entry).name in ("site-packages", "dist-packages") and "/opt/" not in entry
    ]
    assert theirs == []


def test_a_call_imports_from_a_layer(layer, publish, executor_with):
    published = publish(layer)
    assert len(published.layers) == 1
    assert published.ephemeral_mb == 512
    assert "MB packed" in published.summary
    with executor_with(published) as executor:
        check(executor.submit(calls.imported).result(SOON_S), "/opt/")


def test_a_call_imports_from_an_archive(archive, publish, executor_with):
    published = publish(archive)
    assert published.layers == ()
    assert published.ephemeral_mb > 512
    with executor_with(published) as executor:
        found = executor.submit(calls.imported).result(SOON_S)
        check(found, "/wren-packages-")
        assert executor.submit(calls.imported).result(SOON_S) == found


def test_large_arguments_come_after_an_archive(archive, publish, executor_with):
    """The worker has used S3 before its first event, and in a template of environments at that."""
    with executor_with(publish(archive), workers=2) as executor:
        assert list(executor.map(len, [b"x" * 3_000_000, b"y" * 4_000_000], timeout=SOON_S)) == [3_000_000, 4_000_000]


def test_what_is_published_is_not_published_again(layer, archive, publish, s3, lambda_client):
    first = publish(layer, "again")
    assert publish(layer, "again").layers == first.layers
    assert len(lambda_client.list_layer_versions(LayerName="again")["LayerVersions"]) == 1
    published = publish(archive)
    keys = listed(s3)
    assert publish(archive).variables == published.variables
    assert listed(s3) == keys
    assert "was there already" in publish(archive).summary


def test_every_request_to_the_bucket_says_whose_it_is(archive, publish, s3):
    """Which S3 holds against the bucket's owner."""
    s3.delete_object(Bucket=bucket(), Key=publish(archive).variables["WREN_PACKAGES"].removeprefix(f"s3://{bucket()}/"))
    owners = []

    def note(request, **_):
        owners.append((request.method, request.headers.get("x-amz-expected-bucket-owner")))

    s3.meta.events.register("before-send.s3", note)
    try:
        publish(archive, account="123456789012")
    finally:
        s3.meta.events.unregister("before-send.s3", note)
    assert {method for method, _ in owners} == {"HEAD", "PUT"}
    assert {owner for _, owner in owners} <= {"123456789012", b"123456789012"}


def test_what_broke_off_is_completed(archive, publish, s3, executor_with):
    published = publish(archive)
    gone = next(key for key in listed(s3) if key not in published.variables["WREN_PACKAGES"])
    s3.delete_object(Bucket=bucket(), Key=gone)
    assert "uploaded" in publish(archive).summary
    with executor_with(published) as executor:
        check(executor.submit(calls.imported).result(SOON_S), "/wren-packages-")


def test_environments_share_a_disk_without_harm(archive, publish, executor_with, tmp_path):
    """Both are in a call at once; the packages are on the disk once."""
    with executor_with(publish(archive), workers=2) as executor:
        found = list(executor.map(calls.meet, [str(tmp_path)] * 2, [2] * 2, timeout=SOON_S))
    assert len({pid for pid, _ in found}) == 2
    assert len({file for _, file in found}) == 1


def test_packages_that_a_call_removed_are_unpacked_again(archive, publish, executor_with):
    with executor_with(publish(archive)) as executor:
        pid = executor.submit(calls.clear_packages).result(SOON_S)
        check(executor.submit(calls.imported).result(SOON_S), "/wren-packages-")
        assert executor.submit(calls.anything).result(SOON_S) == pid


def bucket():
    return connect(Config()).bucket


def listed(s3):
    found = s3.list_objects_v2(Bucket=bucket(), Prefix=FOLDER).get("Contents", ())
    return {one["Key"]: one["LastModified"] for one in found}


def listing_with(s3, content):
    """Put a list of packages where functions look for them; returns what a function is to be told."""
    body = json.dumps(content).encode()
    key = FOLDER + blake3.blake3(body).hexdigest()
    s3.put_object(Bucket=bucket(), Key=key, Body=body)
    return packages.Published((), {"WREN_PACKAGES": f"s3://{bucket()}/{key}"}, 512, "", "")


def zip_of(text):
    """A zip and its name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as bundle:
        bundle.writestr("planted.py", text)
    return content.getvalue(), blake3.blake3(content.getvalue()).hexdigest()


def test_a_zip_that_was_replaced_is_not_unpacked(s3, executor_with):
    _, digest = zip_of("meant = 1")
    other, _ = zip_of("other = 1")
    s3.put_object(Bucket=bucket(), Key=FOLDER + digest, Body=other)
    published = listing_with(s3, {"format": 1, "pieces": [[digest, len(other), 4096]]})
    with executor_with(published) as executor:
        for _ in range(2):  # the environment is there still, and says so again
            with pytest.raises(DeploymentError, match=f"tampered with.*{digest}"):
                executor.submit(calls.anything).result(SOON_S)


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_an_archive_that_is_gone_is_said_to_be_gone_until_it_is_back(s3, executor_with, mode):
    content, digest = zip_of(f"mode = {mode!r}")
    published = listing_with(s3, {"format": 1, "pieces": [[digest, len(content), 4096]]})
    with executor_with(published, mode=mode) as executor:
        with pytest.raises(DeploymentError, match=f"gone from the bucket.*{digest}.*wren deploy_lambda"):
            executor.submit(calls.anything).result(SOON_S)
        s3.put_object(Bucket=bucket(), Key=FOLDER + digest, Body=content)
        assert executor.submit(calls.folder_of_packages).result(SOON_S)


def test_a_disk_that_is_too_small_is_named(s3, executor_with):
    published = listing_with(s3, {"format": 1, "pieces": [["0" * 64, 1, 10**15]]})
    with (
        executor_with(published) as executor,
        pytest.raises(DeploymentError, match=r"953674317 MB on the disk.*ephemeral storage of 953674829 MB"),
    ):
        executor.submit(calls.anything).result(SOON_S)


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("s3://there/is/none", "names no list"),
        ("s3://no-such-bucket-at-all/wren/packages/" + "0" * 64, r"gone|denied"),
    ],
)
def test_a_variable_that_leads_nowhere_is_said(executor_with, variable, says):
    published = packages.Published((), {"WREN_PACKAGES": variable}, 512, "", "")
    with executor_with(published) as executor, pytest.raises((DeploymentError, StorageError), match=says):
        executor.submit(calls.anything).result(SOON_S)


@pytest.mark.parametrize("content", [{"format": 2, "pieces": []}, {"format": 1, "pieces": [[1]]}])
def test_a_list_of_another_kind_is_said_to_be_one(s3, executor_with, content):
    with (
        executor_with(listing_with(s3, content)) as executor,
        pytest.raises(DeploymentError, match="list of packages"),
    ):
        executor.submit(calls.anything).result(SOON_S)
