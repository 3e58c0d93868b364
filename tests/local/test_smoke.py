"""The local cloud runs a function and keeps an object: whoever sees this pass can build on it."""


def test_a_function_runs_and_an_object_is_kept(cloud, s3, function, invoke):
    name = function("def handler(event, context):\n    return {'got': event}\n")
    assert invoke(name, {"a": 1}).value == {"got": {"a": 1}}

    s3.create_bucket(Bucket="smoke-bucket")
    s3.put_object(Bucket="smoke-bucket", Key="k", Body=b"v")
    assert s3.get_object(Bucket="smoke-bucket", Key="k")["Body"].read() == b"v"
    assert cloud.stats()["lambda"]["invocations"] >= 1
