"""With `echo_output` the lines that calls print are shown while they run: each once, in order, and with its call."""

import os
import sys
import threading
import time
import warnings

import pytest
from as_on_aws import Wren, refusing
from signals import wait_for

from wren_backends import WrenExecutor


class Told:
    """Stands in for a stream and keeps when what was written: a test reads it while threads write."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    @property
    def lines(self):
        return self.text.splitlines()


@pytest.fixture
def told(monkeypatch):
    """Called in a test (pytest has streams of its own for each phase), gives what this process prints from then on."""

    def listen():
        streams = Told(), Told()
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        return streams

    return listen


@pytest.fixture(params=["direct", "s3"])
def echoing(request, cloud, monkeypatch, on_aws):
    """An executor that shows output live: in one mode on the local cloud, in the other as on AWS."""
    if request.param == "s3":
        for name, value in on_aws.items():
            monkeypatch.setenv(name, value)
    with WrenExecutor(2, mode=request.param, echo_output=True, backups=False) as executor:
        yield executor


def test_lines_are_shown_while_the_call_runs_and_none_twice(echoing, gate, told):
    def talks():
        print("one")
        print("two, ", end="")
        print("and more\nthree")
        print("to standard error", file=sys.stderr)
        gate.hold()
        print("four, without its end", end="")

    out, err = told()
    future = echoing.submit(talks)
    wait_for(lambda: len(out.lines) == 3 and err.lines)
    assert not future.done()
    gate.open()
    future.result()
    echoing.shutdown()
    assert out.lines == [f"[call 0] {text}" for text in ("one", "two, and more", "three", "four, without its end")]
    assert err.lines == ["[call 0] to standard error"]


def test_calls_that_travel_together_are_told_apart(echoing, gate, told):
    out, _ = told()
    held = [echoing.submit(gate.hold) for _ in range(2)]
    gate.wait_entered(2)
    rest = [echoing.submit(print, f"text {number}") for number in range(6)]
    gate.open()
    assert [one.result() for one in (*held, *rest)] == [None] * 8
    assert sorted(out.lines) == [f"[call {number + 2}] text {number}" for number in range(6)]


def test_many_lines_are_all_there_in_order(echoing, told):
    def talks():
        for number in range(3000):
            print(number)
            if number % 1000 == 0:
                time.sleep(0.3)  # so that some are shown live and others at the end

    out, _ = told()
    echoing.submit(talks).result()
    assert out.lines == [f"[call 0] {number}" for number in range(3000)]


def test_the_thread_ends_with_the_executor(echoing):
    named = f"wren-echo-{echoing.job_id}"
    assert named in [one.name for one in threading.enumerate()]
    echoing.shutdown()
    assert named not in [one.name for one in threading.enumerate()]


def test_without_it_there_is_no_thread_and_no_request(executor):
    executor.submit(print, "hello").result()
    assert not [one for one in threading.enumerate() if one.name == f"wren-echo-{executor.job_id}"]


def test_live_only_without_what_outcomes_bring(cloud, gate, told):
    def talks():
        print("live")
        gate.hold()
        print("too late to be worth waiting for")

    out, _ = told()
    with WrenExecutor(1, echo_output=True, forward_output=False) as executor:
        future = executor.submit(talks)
        wait_for(lambda: out.lines)
        gate.open()
        future.result()
    assert out.lines[0] == "[call 0] live"


def test_the_log_reads_as_it_does_without(echoing, tmp_path, on_aws):
    echoing.submit(print, "as it was printed").result()
    wren = Wren(tmp_path, {"XDG_STATE_HOME": os.environ["XDG_STATE_HOME"]} if echoing.connection.is_local else on_aws)
    lines = wren.lines("--job", echoing.job_id, "--call", "0")
    assert [line["text"] for line in lines if not line["text"][:1].isupper()] == ["as it was printed"]


def test_who_may_not_read_the_log_is_told_once_and_has_the_output_at_the_end(cloud, gate, told, monkeypatch, on_aws):
    out, _ = told()
    with refusing() as url, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, value in {**on_aws, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": url}.items():
            monkeypatch.setenv(name, value)

        def talks():
            print("hello")
            gate.hold()

        with WrenExecutor(1, echo_output=True, prefix="refused") as executor:
            future = executor.submit(talks)
            wait_for(lambda: [one for one in caught if "logs:FilterLogEvents" in str(one.message)])
            gate.open()
            future.result()
    assert out.lines == ["[call 0] hello"]
    assert len([one for one in caught if "echo_output" in str(one.message)]) == 1
