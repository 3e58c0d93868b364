"""From what is wanted to what is built: wheels of a folder that is an index, trimmed, packed, kept."""

import io
import sys
import zipfile

import pytest

from wren_backends import DeploymentError
from wren_backends.deploy import packages, requirements
from wren_backends.deploy.package import function_zip
from wren_backends.deploy.target import Target

from .wheels import sdist, wheel

X86 = Target((3, 13), "x86_64")
ARM = Target((3, 13), "arm64")
OLD = Target((3, 11), "x86_64")


def names_in(built):
    """Files of a layer, compiled ones apart."""
    with zipfile.ZipFile(built.folder / "layer.zip") as bundle:
        return [one.removeprefix("python/") for one in bundle.namelist() if "__pycache__" not in one]


def build(target, *names, **more):
    return packages.build(requirements.from_names(names), target, **more)


def test_what_depends_on_what_is_found_for_the_target(index):
    wheel(
        index,
        "asked-for",
        needs=["needed>=2", "elsewhere ; sys_platform == 'win32'", "there ; sys_platform == 'linux'"],
    )
    wheel(index, "needed", "1.0")
    wheel(index, "needed", "2.0")
    wheel(index, "there")
    built = build(X86, "asked-for")
    assert built.versions == {"asked-for": "1.0", "needed": "2.0", "there": "1.0"}
    assert "needed.py" in names_in(built)


@pytest.mark.parametrize(
    ("target", "tag", "runs"),
    [
        (X86, "cp313-cp313-manylinux_2_34_x86_64", True),
        (X86, "cp313-cp313-manylinux_2_35_x86_64", False),
        (X86, "cp313-cp313-manylinux_2_17_aarch64", False),
        (X86, "cp312-cp312-manylinux_2_17_x86_64", False),
        (X86, "cp313-cp313-musllinux_1_2_x86_64", False),
        (X86, "cp313-cp313-macosx_11_0_arm64", False),
        (X86, "cp39-abi3-manylinux_2_17_x86_64", True),
        (ARM, "cp313-cp313-manylinux_2_17_aarch64", True),
        (ARM, "cp313-cp313-manylinux_2_17_x86_64", False),
        (OLD, "cp311-cp311-manylinux_2_17_x86_64", True),
        # Amazon Linux 2 has glibc 2.26.
        (OLD, "cp311-cp311-manylinux_2_28_x86_64", False),
    ],
)
def test_wheels_are_those_that_lambda_runs(index, target, tag, runs):
    wheel(index, "compiled", tag=tag)
    if runs:
        assert build(target, "compiled").versions == {"compiled": "1.0"}
    else:
        with pytest.raises(DeploymentError, match=r"compiled: no version of it has a wheel"):
            build(target, "compiled")


def test_all_packages_without_a_wheel_are_named_at_once(index):
    wheel(index, "good", needs=["only-source"])
    sdist(index, "only-source", "3.0")
    wheel(index, "newer-has-none", "1.0")
    sdist(index, "newer-has-none", "2.0")
    wheel(index, "for-others", tag="cp313-cp313-win_amd64")
    with pytest.raises(DeploymentError) as raised:
        build(X86, "good", "newer-has-none==2.0", "for-others", "never-heard-of")
    assert str(raised.value) == (
        "4 of the packages cannot be had for Lambda's Python 3.13 on x86_64 (Amazon Linux 2023, glibc 2.34), for which "
        "they have to be wheels:\n"
        "  for-others: no version of it has a wheel\n"
        "  never-heard-of: the package index does not know it\n"
        "  newer-has-none==2.0: no wheel; the newest version with one is 1.0\n"
        "  only-source: no version of it has a wheel\n"
        "Leave out what your calls do not need, name another version of it, or use a newer Python here and there"
    )


def test_what_does_not_fit_together_is_explained(index):
    wheel(index, "one", needs=["common<2"])
    wheel(index, "two", needs=["common>=2"])
    wheel(index, "common", "1.0")
    wheel(index, "common", "2.0")
    with pytest.raises(DeploymentError, match=r"(?s)no packages for .* that fit together.*common"):
        build(X86, "one", "two")


def test_an_index_that_does_not_answer_is_not_a_missing_wheel(own_cache, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(DeploymentError, match=r"(?s)index does not answer.*UV_DEFAULT_INDEX"):
        build(X86, "numpy")


def test_the_same_is_not_built_twice_even_without_an_index(index, monkeypatch):
    path = wheel(index, "thing")
    said = []
    first = build(X86, "thing", progress=said.append)
    assert said
    assert not first.reused
    path.unlink()
    said.clear()
    again = build(X86, "thing", progress=said.append)
    assert said == []
    assert again.reused
    assert (again.digest, again.versions, again.folder) == (first.digest, first.versions, first.folder)
    with pytest.raises(DeploymentError, match="thing"):
        build(ARM, "thing")


def test_newer_versions_are_looked_for_when_asked_for(index):
    wheel(index, "thing", "1.0")
    first = build(X86, "thing")
    wheel(index, "thing", "2.0")
    assert build(X86, "thing").versions == {"thing": "1.0"}
    newer = build(X86, "thing", refresh=True)
    assert newer.versions == {"thing": "2.0"}
    assert newer.digest != first.digest
    assert build(X86, "thing").versions == {"thing": "2.0"}


def test_the_same_content_has_the_same_digest_whatever_it_was_asked_as(index):
    wheel(index, "thing")
    assert build(X86, "thing").digest == build(X86, "thing==1.*").digest


def test_a_build_that_lost_a_file_is_made_anew(index):
    wheel(index, "thing")
    first = build(X86, "thing")
    (first.folder / "layer.zip").unlink()
    assert not build(X86, "thing").reused
    assert (first.folder / "layer.zip").is_file()


def test_few_builds_are_kept(index, own_cache):
    wheel(index, "thing")
    for number in range(6):
        build(X86, f"thing>0.{number}")
    assert len([one for one in own_cache.iterdir() if not one.name.startswith("making-")]) == packages._KEPT
    assert not [one for one in own_cache.iterdir() if one.name.startswith("making-")]


def test_what_no_call_needs_is_trimmed(index):
    keep = {
        "pack/__init__.py": "from .testing import check\n",
        "pack/testing.py": "def check(): ...\n",
        "pack/data/train/one.csv": "1",
        "pack/data/test/two.csv": "2",
        "pack/LICENSE": "yours",
        "pack/engine.so": "compiled",
        "needy/__init__.py": "from needy.tests.helper import TestRunner\n",
        "needy/tests/__init__.py": "",
        "needy/tests/helper.py": "class TestRunner: ...\n",
        "needy/sub/__init__.py": "def run():\n    from ..sub.tests import all_of_them\n",
        "needy/sub/tests/__init__.py": "all_of_them = 1\n",
        "needy/sub/tests/test_it.py": "",
    }
    trim = {
        "pack/tests/__init__.py": "",
        "pack/tests/test_pack.py": "import pack.tests.data",
        "pack/tests/data/large.bin": "0" * 1000,
        "pack/sub/tests/conftest.py": "",
        "pack/typed.pyi": "",
        "pack/include/pack.h": "int x;",
        "pack/_fast.pyx": "",
        "pack/_fast.c": "int y;",
        "pack/lib/libpack.a": "archive",
        "pack/__pycache__/__init__.cpython-310.pyc": "old",
        "needy/other/test/test_other.py": "",
    }
    wheel(index, "pack", files=keep | trim, scripts={"pack-run": "#!python\nprint()\n"})
    built = build(X86, "pack")
    found = set(names_in(built))
    information = {f"pack-1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")}
    assert found == set(keep) | information
    with zipfile.ZipFile(built.folder / "layer.zip") as bundle:
        listed = bundle.read("python/pack-1.0.dist-info/RECORD").decode().splitlines()
    assert {line.split(",")[0] for line in listed} == found
    assert built.fetched_bytes > built.trimmed_bytes


def test_modules_are_compiled_beforehand_for_this_python_only(index):
    wheel(index, "thing")
    wheel(index, "broken", files={"broken.py": "this is no Python\n"})

    def compiled(target):
        with zipfile.ZipFile(build(target, "thing", "broken").folder / "layer.zip") as bundle:
            return [bundle.read(one)[4:8] for one in bundle.namelist() if one.endswith(".pyc")]

    here = Target(sys.version_info[:2], "x86_64")
    unchecked_hash = b"\1\0\0\0"  # PEP 552
    assert compiled(here) == [unchecked_hash]
    assert compiled(Target((3, 14 if here.python != (3, 14) else 13), "x86_64")) == []


def test_what_fits_beside_the_function_is_a_layer(index, monkeypatch):
    """Compiled modules take what room is left, but for some that the function's next versions may need."""
    reserve = 10_000_000
    wheel(index, "thing", files={"thing/__init__.py": "x = 1\n" * 2000, "thing/deep/deeper.py": "y = 2\n" * 2000})
    whole = build(Target.here(), "thing")
    assert whole.fits_layer
    beside = 20_000_000
    monkeypatch.setattr(packages, "UNZIPPED_BYTES", beside + whole.unpacked_bytes - 1 + reserve)
    tight = build(Target.here(), "thing>0")
    assert tight.fits_layer
    assert whole.trimmed_bytes < tight.unpacked_bytes < whole.unpacked_bytes
    monkeypatch.setattr(packages, "UNZIPPED_BYTES", beside + whole.trimmed_bytes + reserve - 1)
    bare = build(Target.here(), "thing>0.01")
    assert (bare.fits_layer, bare.unpacked_bytes) == (True, whole.trimmed_bytes)
    monkeypatch.setattr(packages, "UNZIPPED_BYTES", beside + whole.trimmed_bytes - 1)
    archive = build(Target.here(), "thing>0.1")
    assert not archive.fits_layer
    assert archive.unpacked_bytes == whole.unpacked_bytes
    assert archive.digest == whole.digest


def test_a_change_of_one_package_leaves_the_others_zips_as_they_are(index, monkeypatch):
    monkeypatch.setattr(packages, "UNZIPPED_BYTES", 1000)
    monkeypatch.setattr(packages, "_OWN_PIECE_BYTES", 1000)
    other = Target((3, 14), "x86_64")
    for name in ("one", "two"):
        wheel(index, name, files={f"{name}.py": f"# {name}\n" * 1000})
    wheel(index, "small")
    before = {one.digest for one in build(other, "one", "two", "small").pieces}
    assert len(before) == 3
    wheel(index, "two", "2.0", files={"two.py": "# changed\n" * 1000})
    after = {one.digest for one in build(other, "one", "two", "small", refresh=True).pieces}
    assert len(after - before) == 1


def test_the_function_s_zip_is_built_for_other_machines_too():
    """From the real index: the worker's own distributions, as they are installed here."""
    for target, elf in ((Target((3, 13), "arm64"), b"\xb7\x00"), (Target((3, 12), "x86_64"), b"\x3e\x00")):
        with zipfile.ZipFile(io.BytesIO(function_zip(target))) as bundle:
            names = bundle.namelist()
            assert "lambda_worker/handler.py" in names
            machines = {bundle.read(one)[18:20] for one in names if one.endswith(".so")}  # e_machine of elf(5)
            assert machines == {elf}
            assert any(one.startswith("typing_extensions") for one in names) == (target.python < (3, 13))


def test_a_function_s_zip_that_lambda_cannot_run_is_refused():
    """No wheel of obstore for arm64 runs on Amazon Linux 2."""
    with pytest.raises(DeploymentError, match=r"obstore==.*: no wheel|obstore==.*no version of it"):
        function_zip(Target((3, 11), "arm64"))
