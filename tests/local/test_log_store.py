"""What the local cloud keeps of logs, and what it hands on when somebody asks."""

import pytest

from lambda_worker import loglines
from wren_backends.local import logs


@pytest.fixture
def stream(tmp_path):
    return logs.LogStore(tmp_path).open("function", "$LATEST")


def texts(stream):
    return [text for _, text in stream.unsynced()]


def test_each_line_is_handed_on_once(stream):
    stream.feed(b"one\ntwo\npart")
    assert texts(stream) == ["one", "two"]
    stream.feed(b"ial\n")
    assert texts(stream) == ["partial"]
    assert texts(stream) == []


def test_of_very_many_lines_the_newest_are_handed_on_and_the_others_are_said_to_be_there(stream, monkeypatch):
    monkeypatch.setattr(logs, "MOST_BYTES", 1000)
    stream.feed(b"".join(b"line %d\n" % number for number in range(500)))
    notice, *rest = texts(stream)
    assert rest == [f"line {number}" for number in range(500 - len(rest), 500)]
    assert 20 < len(rest) < 40
    assert notice.endswith(f"bytes before this are in {stream.path} alone)")
    assert "line 0\n" in stream.path.read_text()
    stream.feed(b"next\n")
    assert texts(stream) == ["next"]


def test_lines_that_say_whose_the_others_are_are_handed_on_however_old(stream, monkeypatch):
    monkeypatch.setattr(logs, "MOST_BYTES", 1000)
    begun = loglines.begun_line("j-1", "r-1", 1, [0])
    stream.feed(f"START RequestId: r-1\n{begun}\n".encode() + b"printed\n" * 500)
    found = texts(stream)
    assert begun in found
    assert found[-20:] == ["printed"] * 20
    assert len([text for text in found if "alone" in text]) == 2
