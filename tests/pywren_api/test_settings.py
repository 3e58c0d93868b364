"""Which executor runs where, from PyWren's settings."""

import os
import sys
import threading

import pytest

import wren_backends.pywren as pywren
from wren_backends import Config, ConfigError, InvocationTimeoutError, SerializationError
from wren_backends.pywren import wrenconfig


def test_the_environment_names_the_default_executor(cloud, monkeypatch):
    monkeypatch.setenv("PYWREN_EXECUTOR", "dummy")
    assert type(pywren.default_executor().invoker).__name__ == "DummyInvoker"
    monkeypatch.setenv("PYWREN_EXECUTOR", "elsewhere")
    with pytest.raises(ConfigError, match="elsewhere"):
        pywren.default_executor()


@pytest.mark.parametrize("factory", ["lambda", "local", "remote", "standalone"])
def test_the_others_run_calls(factory, cloud):
    with getattr(pywren, f"{factory}_executor")(max_workers=1) as executor:
        assert executor.call_async(abs, -1).result() == 1
    with pytest.raises(ConfigError, match="invoker_object"):
        pywren.local_executor(object())


def test_pywrens_dictionary_is_understood(cloud):
    config = wrenconfig.default()
    assert config["s3"]["pywren_prefix"] == "wren"
    assert config["lambda"]["memory"] == Config().memory_mb
    config["s3"]["pywren_prefix"] = "of-pywren"
    config["scheduler"]["map_item_limit"] = 2
    config["lambda"]["timeout"] = 60
    with pywren.default_executor(config=config, max_workers=1) as executor:
        assert executor.invoker.executor.config.prefix == "of-pywren"
        assert executor.invoker.executor.config.timeout_s == 60
        with pytest.raises(ValueError, match="map_item_limit"):
            executor.map(abs, range(3))


def test_our_own_settings_are_understood_too(cloud):
    for config in ({"prefix": "ours"}, Config(prefix="ours")):
        with pywren.lambda_executor(config, max_workers=1) as executor:
            assert executor.invoker.executor.config.prefix == "ours"
    with pytest.raises(ConfigError, match="dictionary"):
        pywren.lambda_executor("pywren.yaml")


def test_a_file_of_pywrens_is_not_overlooked_in_silence(cloud, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("s3: {bucket: mine}\n")
    monkeypatch.setenv("PYWREN_CONFIG_FILE", str(tmp_path / "config.yaml"))
    with pytest.warns(UserWarning, match=r"config.yaml is not read.*WREN_BUCKET"):
        pywren.dummy_executor()


def test_job_max_runtime_ends_a_call(cloud, gate):
    with pywren.local_executor(job_max_runtime=2, max_workers=1) as executor:
        future = executor.call_async(gate.hold, 1)
        with pytest.raises(InvocationTimeoutError):
            future.result()


def test_the_log_level_is_pywrens(run_script):
    source = """
        import wren_backends.pywren as pywren
        pywren.default_executor(max_workers=1).call_async(abs, -1).result()
    """
    assert "invocation.finished" in run_script(source, PYWREN_LOGLEVEL="DEBUG").stderr


def test_all_loggers_show_what_they_have_to_say_as_in_pywren(run_script):
    done = run_script(
        """
        import logging
        import wren_backends.pywren as pywren

        logging.getLogger("of.the.user").info("not yet")
        pywren.wrenlogging.default_config("INFO")
        logging.getLogger("of.the.user").info("now")
        """
    )
    assert "[INFO] of.the.user: now" in done.stderr
    assert "not yet" not in done.stderr


def test_a_dummy_runs_calls_when_it_is_told_to(monkeypatch):
    executor = pywren.dummy_executor()
    seen = [1]
    futures = executor.map(lambda n: (n, os.environ.get("OF_DUMMY"), seen), range(3), extra_env={"OF_DUMMY": "1"})
    seen.append(2)
    assert not any(future.done() for future in futures)
    executor.invoker.run_jobs(MAXJOBS=1)
    assert [future.done() for future in futures] == [True, False, False]
    assert futures[0].result() == (0, "1", [1])
    assert futures[0].run_status["exec_time"] >= 0
    executor.invoker.run_jobs_threaded()
    executor.invoker.thread.join()
    assert pywren.wait(futures, pywren.ALWAYS) == (futures, [])
    assert "OF_DUMMY" not in os.environ


def test_a_dummys_call_that_exits_has_ended():
    future = pywren.dummy_executor().call_async(sys.exit, 3)
    with pytest.raises(SystemExit):
        future.result()
    with pytest.raises(SystemExit):
        future.result(timeout=20)


def test_a_dummy_runs_calls_that_are_waited_for():
    executor = pywren.dummy_executor()
    assert executor.call_async(abs, -1).result() == 1
    assert isinstance(executor.call_async(divmod, 1).exception(), TypeError)
    futures = executor.map(abs, [-1, -2])
    assert futures[1].cancel()
    assert pywren.wait(futures) == (futures, [])
    assert futures[1].cancelled()
    assert isinstance(executor.call_async(id, threading.Lock()).exception(), SerializationError)
    with pytest.raises(ValueError, match="has no log"):
        executor.get_logs(futures[0])
