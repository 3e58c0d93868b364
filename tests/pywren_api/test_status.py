"""`run_status`, `invoke_status` and the log of a call."""

import time

import pytest

import wren_backends.pywren as pywren


def prints(n):
    print("printed by", n)
    if n < 0:
        raise ValueError(n)
    return n


def test_times_are_told_in_the_order_in_which_they_were(pywren_executor):
    begun = time.time()
    future = pywren_executor.call_async(time.sleep, 0.05)
    future.result()
    ran, sent = future.run_status, future.invoke_status
    order = [
        begun,
        sent["func_upload_timestamp"],
        sent["job_invoke_timestamp"],
        sent["host_submit_time"],
        sent["lambda_invoke_timestamp"],
        ran["start_time"],
        ran["end_time"],
        sent["status_done_timestamp"],
        sent["download_output_timestamp"],
        time.time(),
    ]
    assert order == sorted(order)
    assert ran["exec_time"] >= 0.05
    assert ran["exec_time"] == pytest.approx(ran["end_time"] - ran["start_time"])
    assert ran["host_submit_time"] == sent["host_submit_time"]
    for name in ("lambda_invoke_time", "data_upload_time", "func_upload_time", "download_output_time"):
        assert 0 <= sent[name] < 60, name
    assert ran["setup_time"] == 0
    assert ran["exception"] is None


def test_a_call_that_raised_tells_its_times_too(pywren_executor, capsys):
    good, bad = pywren_executor.map(prints, [1, -1])
    pywren.wait([good, bad])
    for future in (good, bad):
        status = future.run_status
        assert future.invoke_status["job_invoke_timestamp"] <= status["start_time"] <= status["end_time"]
        assert status["free_disk_bytes"] > 0
        assert "Linux" in status["server_info"]["uname"]
        assert (status["call_id"], status["callset_id"]) == (future.call_id, future.callset_id)
    assert (good.run_status["stdout"], bad.run_status["stdout"]) == ("printed by 1\n", "printed by -1\n")
    assert bad.run_status["exception"] is None  # as in PyWren: only what kept the call from its end


def test_an_environment_is_warm_the_second_time(cloud):
    with pywren.default_executor(max_workers=1, memory_mb=900) as executor:
        first = executor.call_async(abs, -1)
        first.result()
        second = executor.call_async(abs, -1)
        second.result()
    assert (first.run_status["runtime_cached"], second.run_status["runtime_cached"]) == (False, True)
    assert first.run_status["environment_id"] == second.run_status["environment_id"]


def test_extra_meta_is_found_again_and_may_not_hide_pywrens_own(pywren_executor):
    future = pywren_executor.call_async(abs, -1, extra_meta={"label": "a"})
    future.result()
    assert future.invoke_status["label"] == "a"
    (future,) = pywren_executor.map(abs, [-1], overwrite_invoke_args={"use_cached_runtime": "never"})
    future.result()
    assert future.invoke_status["use_cached_runtime"] == "never"
    with pytest.raises(ValueError, match="data_key"):
        pywren_executor.map(abs, [-1], extra_meta={"data_key": 1})


def test_the_log_is_that_of_the_calls_invocation(pywren_executor, capsys):
    first = pywren_executor.call_async(abs, -1)
    first.result()
    second = pywren_executor.call_async(abs, -1)
    found = pywren_executor.get_logs(second, verbose=False)
    assert capsys.readouterr().out == ""
    request = second.run_status["aws_request_id"]
    assert f"START RequestId: {request}" in found[0][1]
    assert f"REPORT RequestId: {request}" in found[-1][1]
    assert not any(first.run_status["aws_request_id"] in text for _, text in found)
    assert all(isinstance(moment, int) for moment, _ in found)
    pywren_executor.get_logs(second)
    assert f"REPORT RequestId: {request}" in capsys.readouterr().out


def test_a_call_that_never_ran_has_no_log(pywren_executor, gate):
    future = pywren_executor.call_async(gate.hold, 1)
    gate.wait_entered()
    future.cancel()
    with pytest.raises(ValueError, match="has no log"):
        pywren_executor.get_logs(future)
