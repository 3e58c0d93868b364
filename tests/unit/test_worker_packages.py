"""An archive on a worker's disk: interrupted, too slow, too large, fetched by several at once."""

import io
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import blake3
import pytest
from obstore.store import LocalStore

from lambda_worker.objects import ObjectStore
from lambda_worker.packages import Packages, PackagesError

SOON_S = 60.0


@pytest.fixture
def bucket(tmp_path):
    """A folder that takes the place of the bucket."""
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """The environment's disk; what is imported from there is forgotten."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def put(bucket, content):
    digest = blake3.blake3(content).hexdigest()
    (bucket / digest).write_bytes(content)
    return digest


def archive(bucket, *described, missing=()):
    """Put zips, each of some files, and their list; returns its address."""
    pieces = []
    for files in described:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, text in files.items():
                bundle.writestr(name, text)
        digest = put(bucket, packed.getvalue())
        pieces.append([digest, len(packed.getvalue()), sum(map(len, files.values()))])
        if set(files) & set(missing):
            (bucket / digest).unlink()
    return "s3://bucket/" + put(bucket, json.dumps({"format": 1, "pieces": pieces}).encode())


def packages(address, bucket, disk):
    return Packages(address, lambda name, prefix: ObjectStore(LocalStore(str(bucket)), f"s3://{name}"), str(disk))


def test_there_may_be_none(bucket, disk):
    assert packages("", bucket, disk).begin()  # which would fork, and obstore's threads of other tests with it
    packages("", bucket, disk).ensure(SOON_S)
    assert list(disk.iterdir()) == []


def test_they_are_importable_after_the_function_s_own_code(bucket, disk):
    found = packages(archive(bucket, {"planted_one.py": "x = 1"}, {"planted_two/__init__.py": "y = 2"}), bucket, disk)
    found.ensure(SOON_S)
    import planted_one
    import planted_two

    assert (planted_one.x, planted_two.y) == (1, 2)
    assert sys.path[1] == str(Path(planted_one.__file__).parent)


def test_what_is_done_stays_done(bucket, disk):
    """The second zip is missing at first; the first is not fetched again when it is there."""
    address = archive(bucket, {"a.py": "1" * 9000}, {"b.py": "2"}, missing=["b.py"])
    with pytest.raises(PackagesError, match="gone from the bucket"):
        packages(address, bucket, disk).ensure(SOON_S)
    archive(bucket, {"b.py": "2"})
    [done] = [one for one in bucket.iterdir() if zipfile.is_zipfile(one) and "a.py" in zipfile.ZipFile(one).namelist()]
    done.unlink()
    packages(address, bucket, disk).ensure(SOON_S)
    assert sorted(one.name for one in disk.glob("*/site/*")) == ["a.py", "b.py"]


def test_no_time_is_said_to_be_no_time(bucket, disk):
    found = packages(archive(bucket, {"a.py": "1"}, {"b.py": "2"}), bucket, disk)
    with pytest.raises(PackagesError, match=r"2 of the 2 zips .* not unpacked in time.*timeout_s"):
        found.ensure(0)
    found.ensure(SOON_S)
    assert len(list(disk.glob("*/site/*"))) == 2


def test_a_disk_that_fills_up_is_named_and_left_clean(bucket, disk):
    address = archive(bucket, {"a.py": "1" * 100_000})
    site = disk / f"wren-packages-{address[-64:][:32]}" / "site"
    site.mkdir(parents=True)
    (site / "a.py").symlink_to("/dev/full")
    with pytest.raises(PackagesError, match=r"do not fit on its disk .*No space left.*ephemeral storage"):
        packages(address, bucket, disk).ensure(SOON_S)
    assert list(disk.iterdir()) == []
    packages(address, bucket, disk).ensure(SOON_S)
    assert (site / "a.py").read_text() == "1" * 100_000


def test_a_zip_does_not_write_beside_its_folder(bucket, disk):
    with pytest.raises(PackagesError, match=r"names '\.\./outside\.py'"):
        packages(archive(bucket, {"../outside.py": "1"}), bucket, disk).ensure(SOON_S)
    assert list(disk.rglob("outside.py")) == []


def test_several_processes_unpack_once(bucket, disk):
    """One of them does it while the others wait; all of them import it."""
    address = archive(bucket, *({f"m{n}.py": f"value = {n}\n" + "#" * 200_000} for n in range(8)))
    source = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(1, {str(Path(__file__).parents[1])!r})
        from unit.test_worker_packages import packages
        found = packages({address!r}, {str(bucket)!r}, {str(disk)!r})
        ready = found.begin()
        import m7
        print(ready, m7.value, m7.__file__)
        """
    )
    command = [sys.executable, "-W", "ignore", "-c", source]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [one.communicate(timeout=SOON_S) for one in several]
    [site] = disk.glob("*/site")
    assert {out for out, _ in ended} == {f"True 7 {site / 'm7.py'}\n"}
    assert sum("packages.unpacked" in err for _, err in ended) == 1


def test_a_process_that_is_killed_leaves_nothing_locked(bucket, disk):
    """It has the lock, and is gone before it has unpacked anything."""
    address = archive(bucket, {"a.py": "1"})
    folder = disk / f"wren-packages-{address[-64:][:32]}"
    folder.mkdir()
    lock = str(folder / "lock")
    hold = f"import fcntl, os; f = open({lock!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(); os.read(0, 1)"
    with subprocess.Popen([sys.executable, "-u", "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(PackagesError, match="another process was still unpacking"):
            packages(address, bucket, disk).ensure(0.1)
        holder.kill()
    packages(address, bucket, disk).ensure(SOON_S)
    assert os.path.exists(folder / "site" / "a.py")
