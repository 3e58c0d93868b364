"""What calls write is found again by job and by call, once and as it comes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from as_on_aws import client_of, refusing
from signals import wait_for

from wren_backends import ConfigError, EnvironmentLostError, WrenExecutor
from wren_backends.logs import console_url


def says(text):
    print(text)
    print(f"{text}, too", file=sys.stderr)
    return text


def says_and_dies(text):
    print(text, flush=True)
    os._exit(1)


def texts(lines):
    return [line["text"] for line in lines]


def lambdas(lines):
    """The first words of the lines that Lambda itself writes, and the others whole."""
    return [line["text"].split()[0] if line["text"].split()[0].isupper() else line["text"] for line in lines]


def test_lines_are_found_by_job_and_by_call(wren):
    with WrenExecutor(1) as other, WrenExecutor(1) as executor:
        assert other.submit(says, "somebody else").result()
        assert [executor.submit(says, text).result() for text in ("first", "second")]
    lines = wren.lines("--job", executor.job_id)
    assert [text for text in lambdas(lines) if not text.startswith("INIT")] == [
        *("START", "first", "first, too", "END", "REPORT"),
        *("START", "second", "second, too", "END", "REPORT"),
    ]
    assert {line["job"] for line in lines} == {executor.job_id}
    second = wren.lines("--job", executor.job_id, "--call", "1")
    assert lambdas(second) == ["START", "second", "second, too", "END", "REPORT"]
    assert [line["call"] for line in second[1:3]] == [1, 1]
    (request,) = {line["request"] for line in second}
    assert request in second[0]["text"]
    assert "somebody else" not in texts(lines)


def test_calls_that_travelled_together_are_told_apart(wren_on_aws, gate):
    with WrenExecutor(1, backups=False) as executor:
        held = executor.submit(gate.hold)
        gate.wait_entered()
        together = [executor.submit(says if number % 2 else len, f"text {number}") for number in range(6)]
        gate.open()
        assert held.result() is None
        assert [one.result() for one in together][1::2] == ["text 1", "text 3", "text 5"]
    found = wren_on_aws.lines("--job", executor.job_id, "--call", "4")
    assert [text for text in lambdas(found) if "text" in text] == ["text 3", "text 3, too"]
    assert lambdas(wren_on_aws.lines("--job", executor.job_id, "--call", "5"))[-2:] == ["END", "REPORT"]


def test_what_a_call_printed_before_its_end_is_there_though_the_client_never_had_it(wren_on_aws):
    with WrenExecutor(1, max_attempts=1) as executor:
        future = executor.submit(says_and_dies, "last words")
        assert isinstance(future.exception(), EnvironmentLostError)
    assert "last words" in texts(wren_on_aws.lines("--job", executor.job_id, "--call", "0"))


def test_what_subprocesses_print_belongs_to_the_call(wren_on_aws):
    def runs():
        subprocess.run([sys.executable, "-c", "print('from below')"], check=True)

    with WrenExecutor(1) as executor:
        executor.submit(runs).result()
    assert "from below" in texts(wren_on_aws.lines("--job", executor.job_id, "--call", "0"))


def test_a_terminal_obeys_nothing_that_stands_in_a_log(wren_on_aws):
    with WrenExecutor(1) as executor:
        executor.submit(says, "\x1b[31mred\x1b[0m \x1b]0;title\x07").result()
    shown = wren_on_aws("logs", "--since", "10m").stdout  # of all jobs
    # click leaves out colours where nobody sees them
    assert "call 0     red \\x1b]0;title\\x07\n" in shown


def test_following_shows_lines_while_calls_run_and_ends_with_ctrl_c(wren, gate):
    def talks():
        print("begun", flush=True)
        gate.hold()
        print("done", flush=True)

    with WrenExecutor(1) as executor:
        future = executor.submit(talks)
        gate.wait_entered()
        with wren.running("logs", "--follow", "--json", "--job", executor.job_id) as process:
            seen = []
            while "begun" not in texts(seen):
                seen.append(json.loads(process.stdout.readline()))
            assert not future.done()
            gate.open()
            while "done" not in texts(seen):
                seen.append(json.loads(process.stdout.readline()))
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=30)
            assert process.returncode == 0
    assert "Traceback" not in errors
    every = [*texts(seen), *texts(map(json.loads, rest.splitlines()))]
    assert (every.count("begun"), every.count("done")) == (1, 1)


def test_what_one_function_wrote_last_hides_nothing_of_another(wren_on_aws, cloud):
    """That one is asked first and has written a minute after the other."""
    client, now_ms = client_of(cloud, "logs"), int(time.time() * 1000)
    for name, at_ms in (("talking", now_ms), ("talking-256mb", now_ms - 60_000)):
        place = {"logGroupName": f"/aws/lambda/{name}", "logStreamName": "one"}
        client.create_log_group(logGroupName=place["logGroupName"])
        client.create_log_stream(**place)
        client.put_log_events(**place, logEvents=[{"timestamp": at_ms, "message": f"by {name}"}])
    shown = wren_on_aws("logs", WREN_FUNCTION="talking", WREN_SIZES_MB="256").stdout
    assert [line.rpartition(" ")[2] for line in shown.splitlines()] == ["talking", "talking-256mb"]


def test_latest_logs_are_those_of_the_last_stream(wren_on_aws):
    with WrenExecutor(1) as executor:
        future = executor.submit(says_and_dies, f"last words of {executor.job_id}")
        assert isinstance(future.exception(), EnvironmentLostError)
    shown = wait_for(lambda: wren_on_aws("print-latest-logs").stdout)
    assert f"last words of {executor.job_id}" in shown
    assert wren_on_aws("print_latest_logs").stdout == shown


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--call", "3"], "--call needs --job"),
        (["--job", "no such/job"], "not a job id"),
        (["--since", "yesterday"], "such as 10m"),
        (["--call", "-1", "--job", "j"], "--call"),
    ],
)
def test_what_makes_no_sense_is_said(wren_on_aws, arguments, hint):
    done = wren_on_aws("logs", *arguments)
    assert done.returncode in (1, 2)
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_found_says_where_to_look(wren_on_aws):
    done = wren_on_aws("logs", "--job", "j-nobody")
    assert (done.returncode, done.stdout) == (0, "")
    assert "--since" in done.stderr


def test_a_function_that_never_ran_has_no_log(wren_on_aws):
    done = wren_on_aws("print_latest_logs", WREN_FUNCTION="never-called")
    assert done.returncode == 1
    assert "wren test_function" in done.stderr


@pytest.mark.parametrize(
    ("region", "partition", "url"),
    [
        ("eu-west-1", "aws", "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1"),
        ("cn-north-1", "aws-cn", "https://cn-north-1.console.amazonaws.cn/cloudwatch/home?region=cn-north-1"),
        (
            *("us-gov-west-1", "aws-us-gov"),
            "https://us-gov-west-1.console.amazonaws-us-gov.com/cloudwatch/home?region=us-gov-west-1",
        ),
    ],
)
def test_the_address_of_the_log_in_each_partition(region, partition, url):
    group = "#logsV2:log-groups/log-group/$252Faws$252Flambda$252Ff"
    assert console_url("f", region, partition) == f"{url}{group}"
    stream = f"{url}{group}/log-events/2026$252F01$252F31$252F$255B$2524LATEST$255D0a"
    assert console_url("f", region, partition, "2026/01/31/[$LATEST]0a") == stream
    with pytest.raises(ConfigError, match="no public console"):
        console_url("f", "us-iso-east-1", "aws-iso")


def test_the_command_takes_region_and_function_from_the_settings(wren_on_aws):
    shown = wren_on_aws("log-url", "--stream", "s", WREN_REGION="cn-north-1").stdout
    assert shown == console_url("as-on-aws", "cn-north-1", "aws-cn", "s") + "\n"


def test_who_may_not_read_learns_which_right_it_takes(wren_on_aws):
    with refusing() as url:
        for command, right in (("logs", "logs:FilterLogEvents"), ("print_latest_logs", "logs:DescribeLogStreams")):
            done = wren_on_aws(command, AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=url)
            assert done.returncode == 1
            assert right in done.stderr
            assert "Traceback" not in done.stderr
