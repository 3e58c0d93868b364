"""What this library leaves in a bucket expires, and the rules of others stay as they are."""

import uuid

import pytest

from wren_backends import WrenExecutor
from wren_backends.deploy.bucket import put_lifecycle
from wren_backends.local.options import BUCKET

OURS = ["aws/lambda/async/fn/", "wren/blobs/", "wren/jobs/"]
THEIRS = [
    {"ID": "keep me", "Status": "Enabled", "Filter": {"Prefix": "theirs/"}, "Expiration": {"Days": 30}},
    {
        "ID": "tagged",
        "Status": "Disabled",
        "Filter": {"And": {"Prefix": "wren/jobs/", "Tags": [{"Key": "a", "Value": "b"}]}},
        "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}],
    },
]


@pytest.fixture
def s3(bucket):
    return bucket.s3


@pytest.fixture
def new_bucket(s3):
    name = f"lifecycle-{uuid.uuid4().hex[:10]}"
    s3.create_bucket(Bucket=name)
    yield name
    s3.delete_bucket(Bucket=name)


def rules_of(s3, bucket):
    return s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]


def days_by_folder(rules):
    return {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in rules if "wren-backends" in rule["ID"]}


def test_a_bucket_without_rules_gets_ours(s3, new_bucket):
    put_lifecycle(s3, new_bucket, "wren", "fn")
    rules = rules_of(s3, new_bucket)
    assert days_by_folder(rules) == dict.fromkeys(OURS, 7)
    for rule in rules:
        assert rule["Status"] == "Enabled"
        assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
        assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_the_rules_of_others_stay(s3, new_bucket):
    s3.put_bucket_lifecycle_configuration(Bucket=new_bucket, LifecycleConfiguration={"Rules": THEIRS})
    theirs = rules_of(s3, new_bucket)  # Ceph words a filter by prefix and tag otherwise than it was given
    put_lifecycle(s3, new_bucket, "wren", "fn")
    put_lifecycle(s3, new_bucket, "other-project", "fn", days=2)
    rules = rules_of(s3, new_bucket)
    assert len(theirs) == len(THEIRS)
    assert [rule for rule in rules if "wren-backends" not in rule["ID"]] == theirs
    assert days_by_folder(rules) == {
        "wren/jobs/": 7,
        "wren/blobs/": 7,
        "other-project/jobs/": 2,
        "other-project/blobs/": 2,
        "aws/lambda/async/fn/": 2,
    }


def test_ours_are_replaced_not_repeated(s3, new_bucket):
    put_lifecycle(s3, new_bucket, "wren", "fn", days=3)
    put_lifecycle(s3, new_bucket, "wren", "fn", days=5)
    assert days_by_folder(rules_of(s3, new_bucket)) == dict.fromkeys(OURS, 5)
    assert len(rules_of(s3, new_bucket)) == 3


def test_a_project_at_the_root_of_its_bucket(s3, new_bucket):
    put_lifecycle(s3, new_bucket, "", "fn")
    assert sorted(days_by_folder(rules_of(s3, new_bucket))) == ["aws/lambda/async/fn/", "blobs/", "jobs/"]


def test_a_time_that_would_delete_what_is_in_use_is_refused(s3, new_bucket):
    with pytest.raises(ValueError, match="days=0"):
        put_lifecycle(s3, new_bucket, "wren", "fn", days=0)


def test_the_local_clouds_bucket_has_them(s3, cloud):
    with WrenExecutor(1) as executor:
        function = executor.connection.function
    folders = days_by_folder(rules_of(s3, BUCKET))
    assert {"wren/jobs/", "wren/blobs/", f"aws/lambda/async/{function}/"} <= folders.keys()
