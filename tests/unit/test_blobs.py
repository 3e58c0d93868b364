"""What the client holds of blobs, and for how long."""

import pytest
from obstore.store import LocalStore

from lambda_worker.objects import ObjectStore
from lambda_worker.protocol import BlobRef
from wren_backends import blobs as blobs_module
from wren_backends import loops
from wren_backends.blobs import Blobs
from wren_backends.events import Journal


@pytest.fixture
def blobs(tmp_path):
    return Blobs(ObjectStore(LocalStore(str(tmp_path)), "a folder"), 10, 1000, Journal())


def holds(blobs, ref):
    """Whether it could send the content again."""
    return blobs.forget(ref)


def upload(blobs, *refs):
    loops.run(blobs.upload(refs))


def test_content_is_held_until_it_is_uploaded(blobs):
    ref = blobs.keep(b"arguments")
    assert holds(blobs, ref)
    upload(blobs, ref)
    assert not holds(blobs, ref)


def test_what_is_kept_is_held_until_it_is_let_go(blobs):
    ref = blobs.keep(b"modules", kept=True)
    upload(blobs, ref)
    assert holds(blobs, ref)
    upload(blobs, ref)
    blobs.let_go(ref)
    assert not holds(blobs, ref)


def test_what_is_let_go_before_it_is_uploaded_still_arrives(blobs, tmp_path):
    ref = blobs.keep(b"modules", kept=True)
    blobs.let_go(ref)
    upload(blobs, ref)
    assert (tmp_path / ref.key).read_bytes() == b"modules"
    assert not holds(blobs, ref)


def test_the_oldest_that_are_uploaded_are_forgotten_first(blobs, monkeypatch):
    monkeypatch.setattr(blobs_module, "_REMEMBERED", 10)
    blobs._trimmed_at = 10
    held = blobs.keep(b"held", kept=True)
    waiting = blobs.keep(b"waiting")
    done = [blobs.keep(b"%d" % number) for number in range(8)]
    upload(blobs, held, *done)
    newest = blobs.keep(b"newest")
    assert [holds(blobs, ref) for ref in (held, waiting, newest)] == [True] * 3
    assert len(blobs._uploads) == 9
    assert done[-1].digest in blobs._uploads
    assert done[0].digest not in blobs._uploads


def test_what_a_call_has_made_is_not_taken_for_a_blob_of_the_same_content(blobs, tmp_path):
    ours = blobs.keep(b"content")
    theirs = BlobRef(ours.digest, ours.size, "j-1", 3)
    upload(blobs, theirs, ours)
    assert (tmp_path / ours.key).read_bytes() == b"content"
    assert not (tmp_path / theirs.key).exists()
    assert not blobs.forget(theirs)
