"""Whatever calls print, in whatever way, costs no result; what is text is shown here."""

import os
import subprocess
import sys

import pytest

from wren_backends import WrenExecutor

LINES = 1_000_000


@pytest.mark.parametrize("text", ["ä€😀", "\0\x1b[31m\r\b", "a\u2028b\x85c", ""])
def test_text_of_any_kind(tried_in_any_mode, capsys, text):
    assert tried_in_any_mode.result(lambda: print(text, end="|", file=sys.stderr) or 5) == 5
    assert capsys.readouterr().err == f"{text}|"


def test_what_cannot_be_encoded_is_the_calls_error_as_it_is_elsewhere(tried):
    assert type(tried.error(print, "\ud800")) is UnicodeEncodeError


BINARY = {
    "os.write": lambda: os.write(1, b"\xff\xfe\0binary"),
    "os.write to stderr": lambda: os.write(2, b"\xff\xfe\0binary\n"),
    "buffer": lambda: sys.stdout.buffer.write(b"\xff\xfe\0binary"),
    "a process": lambda: len(subprocess.run(["printf", r"\377\376"], check=True).args),
    "without a line end": lambda: os.write(1, b"x" * 200_000),
}


@pytest.mark.parametrize("what", BINARY)
def test_bytes(tried_in_any_mode, what):
    assert tried_in_any_mode.result(BINARY[what]) > 0


def test_a_million_lines_at_once(tried_in_any_mode, capsys):
    def prints():
        print("\n".join(map(str, range(LINES))))
        return "the value"

    assert tried_in_any_mode.result(prints) == "the value"
    shown = capsys.readouterr().out
    assert shown.startswith("0\n1\n2\n")
    assert "the function's log has all of it" in shown
    assert len(shown) < 100_000


def test_many_lines_one_by_one(tried):
    def prints(lines):
        for number in range(lines):
            print(number)
        return "the value"

    assert tried.result(prints, LINES // 10) == "the value"


def test_many_calls_that_print_a_lot(cloud, capsys):
    def prints(number):
        print(str(number) * 100_000)
        return number

    with WrenExecutor(2) as executor:
        assert list(executor.map(prints, range(60))) == list(range(60))
    assert len(capsys.readouterr().out) < 60 * 70_000


def test_streams_that_are_replaced_and_kept(abused, capsys):
    def replaces():
        sys.stdout.write("before\n")
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  left open, as users do
        print("lost")

    abused.result(replaces)
    abused.result(print, "after")
    assert capsys.readouterr().out == "before\nafter\n"
