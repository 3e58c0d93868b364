"""The user's own modules are found, packed with their data, and packed anew when they change."""

import importlib
import io
import pickle
import random
import sys
import zipfile

import cloudpickle
import numpy as np
import pytest

from wren_backends import SerializationError, bundle, own_modules
from wren_backends.bundle import UserModules
from wren_backends.events import Journal


class Kept:
    """Stands in for `Blobs`: keeps the bundles themselves."""

    def __init__(self):
        self.bundles, self.gone = [], []

    def keep(self, data, *, kept=False):
        self.bundles.append(data)
        return f"bundle {len(self.bundles)}"

    def let_go(self, ref):
        self.gone.append(ref)

    def names(self):
        """Files of the newest bundle."""
        return zipfile.ZipFile(io.BytesIO(self.bundles[-1])).namelist()

    def read(self, name):
        """A file of the newest bundle."""
        return zipfile.ZipFile(io.BytesIO(self.bundles[-1])).read(name)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write and import modules of the user; they are forgotten after the test."""
    known = dict(sys.modules)
    # The modules of the test run itself are the user's as well, and would be in every bundle.
    monkeypatch.setattr(own_modules, "_NEVER", own_modules._NEVER | set(known))
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text="def f(): return 1\n"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    yield write
    for name in set(sys.modules) - set(known):
        del sys.modules[name]


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def modules(kept):
    return UserModules(kept)


def test_nothing_is_packed_for_what_is_installed(own, kept, modules):
    own("own_a.py")
    importlib.import_module("own_a")
    for value in (random.random, np.sum, len, 3, {"own_b": 1}):
        assert modules.needed_by(pickle.dumps(value, protocol=5)) is None
    assert kept.bundles == []


@pytest.mark.parametrize("dumps", [lambda x: pickle.dumps(x, protocol=5), lambda x: cloudpickle.dumps(x, protocol=5)])
def test_a_function_of_an_own_module_brings_it(own, kept, modules, dumps):
    own("own_a.py")
    function = importlib.import_module("own_a").f
    assert modules.needed_by(dumps(function)) == "bundle 1"
    assert kept.names() == ["own_a.py"]


def test_a_lambda_that_uses_an_own_module_brings_it(own, kept, modules):
    own("own_a.py")
    own_a = importlib.import_module("own_a")
    assert modules.needed_by(cloudpickle.dumps(lambda: own_a.f() + 1, protocol=5))


def test_a_package_comes_whole_with_its_data_and_without_its_leavings(own, kept, modules):
    own("own_package/__init__.py")
    own("own_package/sub/deep.py")
    own("own_package/sub/__init__.py")
    own("own_package/data.csv", "1,2")
    own("own_package/__pycache__/x.pyc")
    own("own_package/old.pyc")
    own("own_package/.git/config")
    deep = importlib.import_module("own_package.sub.deep")
    assert modules.needed_by(pickle.dumps(deep.f, protocol=5))
    assert kept.names() == [
        "own_package/__init__.py",
        "own_package/data.csv",
        "own_package/sub/__init__.py",
        "own_package/sub/deep.py",
    ]
    assert kept.read("own_package/data.csv") == b"1,2"


def test_modules_that_import_each_other_travel_together(own, kept, modules):
    own("own_a.py", "import own_b\ndef f(): return own_b.f()\n")
    own("own_b.py")
    assert modules.needed_by(pickle.dumps(importlib.import_module("own_a").f, protocol=5))
    assert kept.names() == ["own_a.py", "own_b.py"]


def test_a_namespace_package_is_packed(own, kept, modules):
    own("own_space/part.py")
    part = importlib.import_module("own_space.part")
    assert modules.needed_by(pickle.dumps(part.f, protocol=5))
    assert kept.names() == ["own_space/part.py"]


def test_an_unchanged_bundle_is_made_once(own, kept, modules):
    own("own_a.py")
    pickled = pickle.dumps(importlib.import_module("own_a").f, protocol=5)
    first = modules.needed_by(pickled)
    modules.refresh()
    assert modules.needed_by(pickled) == first
    assert len(kept.bundles) == 1


def test_the_same_files_give_the_same_bytes(own):
    path = own("own_a.py")
    pickled = pickle.dumps(importlib.import_module("own_a").f, protocol=5)
    both = []
    for _ in range(2):
        kept = Kept()
        UserModules(kept).needed_by(pickled)
        both.append(kept.bundles[0])
        path.touch()
    assert both[0] == both[1]


def test_an_edit_is_seen_after_a_refresh(own, kept, modules):
    own("own_a.py")
    pickled = pickle.dumps(importlib.import_module("own_a").f, protocol=5)
    modules.needed_by(pickled)
    own("own_a.py", "def f(): return 2 + 2\n")
    modules.refresh()
    assert modules.needed_by(pickled) == "bundle 2"
    assert kept.read("own_a.py") == b"def f(): return 2 + 2\n"
    assert kept.gone == ["bundle 1"]


def test_a_module_imported_later_is_seen_without_a_refresh(own, kept, modules):
    own("own_a.py")
    own("own_b.py")
    first, second = (pickle.dumps(importlib.import_module("own_a").f, protocol=5), None)
    modules.needed_by(first)
    second = pickle.dumps(importlib.import_module("own_b").f, protocol=5)
    assert modules.needed_by(second) == "bundle 2"
    assert kept.names() == ["own_a.py", "own_b.py"]


def test_a_longer_name_is_not_mistaken(own, modules):
    own("own_a.py")
    own("own_a_longer.py")
    importlib.import_module("own_a")
    assert modules.needed_by(pickle.dumps("own_a_longer", protocol=5)) is None


def test_modules_that_are_too_large_name_their_largest_files(own, modules, monkeypatch):
    monkeypatch.setattr(bundle, "_LIMIT_BYTES", 1000)
    own("own_package/__init__.py")
    own("own_package/huge.bin", "x" * 2000)
    package = importlib.import_module("own_package")
    with pytest.raises(SerializationError, match=r"own_package.*huge\.bin.*Move data out"):
        modules.needed_by(pickle.dumps(package.f, protocol=5))


def test_the_worker_package_and_main_never_travel(kept, modules):
    from lambda_worker.batches import run_chunk

    modules.needed_by(pickle.dumps(run_chunk, protocol=5))
    assert kept.bundles == []


def test_blobs_take_what_is_packed(own):
    """The stand-in above is what `Blobs` is to the bundle."""
    from wren_backends.blobs import Blobs

    own("own_a.py")
    blobs = Blobs(None, 1000, 1000, Journal())
    ref = UserModules(blobs).needed_by(pickle.dumps(importlib.import_module("own_a").f, protocol=5))
    assert ref.size > 0
