"""What is wanted, from each place it may be written down in."""

import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution

import packaging.markers
import pytest

from wren_backends import ConfigError, DeploymentError
from wren_backends.deploy import environment, packages, requirements
from wren_backends.deploy.target import Target

from .wheels import wheel

X86 = Target((3, 13), "x86_64")


@pytest.fixture
def installed(tmp_path):
    """Make installed distributions; returns what `choose` makes of them."""

    def choose(*described):
        for name, needs, *more in described:
            folder = tmp_path / f"{name}-1.0.dist-info"
            folder.mkdir()
            extras = "".join(f"Provides-Extra: {one}\n" for one in ("fast", "test"))
            requires = "".join(f"Requires-Dist: {one}\n" for one in needs)
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{extras}{requires}")
            for file, text in more:
                (folder / file).write_text(text)
        return environment.choose(PathDistribution(one) for one in sorted(tmp_path.glob("*.dist-info")))

    choose.folder = tmp_path
    return choose


def test_the_environment_s_work_travels_and_its_tools_do_not(installed):
    chosen = installed(
        ("scikit-learn", ["numpy>=2", "scipy", 'pytest ; extra == "test"']),
        ("scipy", ["numpy"]),
        ("numpy", []),
        ("boto3", ["botocore"]),
        ("botocore", ["urllib3"]),
        ("urllib3", []),
        ("pytest", ["pluggy"]),
        ("pluggy", []),
        ("pytest-xdist", ["execnet"]),
        ("execnet", []),
        ("pandas-stubs", []),
        ("wren-backends", ["joblib", "boto3", 'moto ; extra == "test"']),
        ("joblib", []),
        ("moto", ['flask ; extra == "fast"']),
        ("flask", []),
    )
    assert list(chosen.versions) == ["joblib", "numpy", "scikit-learn", "scipy"]
    assert chosen.roots == ("joblib", "scikit-learn")


def test_what_is_left_out_takes_along_what_it_alone_needs(installed):
    installed(("Torch_Cuda", ["nvidia", "numpy"]), ("nvidia", []), ("numpy", []), ("mine", ["numpy", "torch-cuda"]))
    found = [PathDistribution(one) for one in sorted(installed.folder.glob("*.dist-info"))]
    assert list(environment.choose(found, ["torch-cuda"]).versions) == ["mine", "numpy"]


def test_what_work_depends_on_is_no_tool(installed):
    chosen = installed(
        ("s3fs", ["aiobotocore"]), ("aiobotocore", ["botocore"]), ("botocore", ["urllib3"]), ("urllib3", [])
    )
    assert list(chosen.versions) == ["aiobotocore", "botocore", "s3fs", "urllib3"]


def test_what_was_asked_for_by_name_travels_though_a_tool_depends_on_it_too(installed):
    asked = ("REQUESTED", "")
    chosen = installed(("moto", ["requests"]), ("requests", ["idna"], asked), ("idna", []))
    assert list(chosen.versions) == ["idna", "requests"]


def test_extras_that_are_asked_for_travel(installed):
    chosen = installed(
        ("mine", ["dask[fast]"]),
        ("dask", ['numpy ; extra == "fast"', 'pytest ; extra == "test"']),
        ("numpy", []),
        ("pytest", []),
    )
    assert list(chosen.versions) == ["dask", "mine", "numpy"]


def test_distributions_that_depend_on_each_other_travel(installed):
    assert list(installed(("egg", ["hen"]), ("hen", ["egg"])).versions) == ["egg", "hen"]


def test_editable_installs_stay_and_what_they_need_travels(installed):
    link = ("direct_url.json", '{"url": "file:///x", "dir_info": {"editable": true}}')
    chosen = installed(("mine", ["numpy"], link), ("numpy", []))
    assert (list(chosen.versions), chosen.editable) == (["numpy"], ("mine",))


def test_this_environment_is_taken_as_it_is():
    wanted = requirements.from_environment()
    names = {line.partition("==")[0] for line in wanted.lines}
    assert {"numpy", "pandas", "scikit-learn", "scipy", "dask", "distributed", "joblib"} <= names
    assert names.isdisjoint(
        {"wren-backends", "boto3", "pytest", "ruff", "moto", "awslambdaric", "uv", "pluggy", "flask"}
    )
    assert wanted.digest == requirements.from_environment().digest


@pytest.fixture
def project(tmp_path, index):
    """A Python of its own, into which the test installs from the index and from folders."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    return index, site


def run_in(project, monkeypatch, target=X86):
    monkeypatch.setattr(
        environment, "distributions", lambda: [PathDistribution(one) for one in project.glob("*.dist-info")]
    )
    return packages.build(requirements.from_environment(), target)


def in_layer(built, name):
    with zipfile.ZipFile(built.folder / "layer.zip") as bundle:
        return bundle.read(f"python/{name}")


def install(path, site, direct=False):
    """What pip does with a wheel that needs nothing special, from an index or from a folder."""
    with zipfile.ZipFile(path) as bundle:
        bundle.extractall(site)
    if direct:
        stem = "-".join(path.name.split("-")[:2])
        (site / f"{stem}.dist-info" / "direct_url.json").write_text('{"url": "file:///somewhere", "dir_info": {}}')


def test_what_no_index_has_is_copied_from_here(project, tmp_path, monkeypatch):
    index, site = project
    install(wheel(index, "known"), site)
    local = tmp_path / "local"
    local.mkdir()
    install(
        wheel(local, "own-library", files={"own_library/__init__.py": "", "own_library/data.txt": "data"}), site, True
    )
    monkeypatch.syspath_prepend(site)
    built = run_in(site, monkeypatch)
    assert built.versions == {"known": "1.0", "own-library": "1.0"}
    assert in_layer(built, "own_library/data.txt") == b"data"
    assert run_in(site, monkeypatch).reused


def test_what_is_copied_anew_though_its_version_stayed_is_built_anew(project, tmp_path, monkeypatch):
    _, site = project
    monkeypatch.syspath_prepend(site)
    built = []
    for text in ("WHAT = 'old'\n", "WHAT = 'new'\n"):
        install(wheel(tmp_path, "own-library", files={"own_library.py": text}), site, True)
        built.append(run_in(site, monkeypatch))
        assert in_layer(built[-1], "own_library.py") == text.encode()
    assert built[0].digest != built[1].digest


def test_what_was_built_here_is_refused(project, tmp_path, monkeypatch):
    _, site = project
    install(wheel(tmp_path, "own-extension", tag="cp313-cp313-linux_x86_64"), site, True)
    monkeypatch.syspath_prepend(site)
    with pytest.raises(DeploymentError, match=r"own-extension 1\.0 was built on this machine.*UV_FIND_LINKS"):
        run_in(site, monkeypatch)


def test_from_another_system_lambda_s_own_packages_are_found(index, monkeypatch, tmp_path):
    """What is here for this system only stays here, and what Lambda's needs in its place comes."""
    site = tmp_path / "site"
    site.mkdir()
    needs = ["shared", "for-windows ; sys_platform == 'win32'", "for-linux ; sys_platform == 'linux'"]
    install(wheel(index, "work", needs=needs), site)
    install(wheel(index, "shared"), site)
    install(wheel(tmp_path, "for-windows", tag="py3-none-win_amd64"), site)
    for name in ("shared", "for-linux"):
        wheel(index, name, "2.0")
    described = [PathDistribution(one) for one in site.glob("*.dist-info")]
    (site / "for_windows-1.0.dist-info" / "REQUESTED").write_text("")
    there = {**packaging.markers.default_environment(), "sys_platform": "win32"}
    with monkeypatch.context() as patch:
        patch.setattr(environment, "distributions", lambda: described)
        # The markers are evaluated as there.
        patch.setattr(packaging.markers, "default_environment", lambda: there)
        patch.setattr(sys, "platform", "win32")
        wanted = requirements.from_environment()
    assert wanted.lines == ("work==1.0",)
    assert packages.build(wanted, X86).versions == {"for-linux": "2.0", "shared": "1.0", "work": "1.0"}


def test_what_a_copied_distribution_needs_comes_too(index, monkeypatch, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    install(wheel(tmp_path, "own-library", needs=["below"]), site, True)
    install(wheel(index, "below"), site)
    described = [PathDistribution(one) for one in site.glob("*.dist-info")]
    monkeypatch.setattr(environment, "distributions", lambda: described)
    monkeypatch.syspath_prepend(site)
    for exact in (True, False):
        built = packages.build(requirements.from_environment(exact=exact), X86)
        assert built.versions == {"below": "1.0", "own-library": "1.0"}


def test_other_versions_are_taken_if_that_is_allowed(index, monkeypatch, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    install(wheel(tmp_path, "thing", "2.0"), site)
    install(wheel(index, "same", "1.0"), site)
    wheel(index, "same", "1.5")
    wheel(index, "thing", "1.0")
    monkeypatch.setattr(
        environment, "distributions", lambda: [PathDistribution(one) for one in site.glob("*.dist-info")]
    )
    with pytest.raises(DeploymentError, match=r"thing==2\.0: no wheel; the newest version with one is 1\.0|thing"):
        packages.build(requirements.from_environment(), X86)
    built = packages.build(requirements.from_environment(exact=False), X86)
    assert built.versions == {"same": "1.0", "thing": "1.0"}
    assert built.differing == {"thing": "2.0"}


def test_a_name_without_a_version_is_the_one_that_is_here_if_there_is_a_wheel(index):
    here = dict(requirements.from_names(["toolz"]).preferred)["toolz"]
    wheel(index, "toolz", here)
    wheel(index, "toolz", "99.0")
    assert packages.build(requirements.from_names(["toolz"]), X86).versions == {"toolz": here}
    assert packages.build(requirements.from_names(["toolz>90"]), X86).differing == {"toolz": here}


@pytest.mark.parametrize("name", ["numpy pandas", "=1.0", "numpy==", "git+https://x"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ConfigError, match="does not name a package"):
        requirements.from_names([name])


def test_no_name_is_refused():
    with pytest.raises(ConfigError, match="no package is named"):
        requirements.from_names([" "])


def test_a_requirements_file_with_all_it_may_hold(index, tmp_path):
    for name, version in (
        ("one", "1.0"),
        ("one", "2.0"),
        ("two", "1.0"),
        ("two", "2.0"),
        ("three", "1.0"),
        ("four", "1.0"),
    ):
        wheel(index, name, version)
    folder = tmp_path / "wanted"
    (folder / "more").mkdir(parents=True)
    (folder / "requirements.txt").write_text(
        "# ours\n-e .\n./library\none<2  # not yet\n-r more/extra.txt\n--constraint=bounds.txt\n"
        "four ; sys_platform == 'win32'\n"
    )
    (folder / "more" / "extra.txt").write_text("two\nthree \\\n  >=1\n")
    (folder / "bounds.txt").write_text("two<2\nfour==1.0\n")
    wanted = requirements.from_file(folder / "requirements.txt")
    assert len(wanted.notes) == 2
    assert packages.build(wanted, X86).versions == {"one": "1.0", "three": "1.0", "two": "1.0"}
    (folder / "more" / "extra.txt").write_text("two\n")
    changed = requirements.from_file(folder / "requirements.txt")
    assert packages.build(changed, X86).versions == {"one": "1.0", "two": "1.0"}


def test_a_requirements_file_may_name_an_index_of_its_own(tmp_path, monkeypatch, index):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    wheel(elsewhere, "only-there")
    (tmp_path / "requirements.txt").write_text(f"--find-links {elsewhere}\nonly-there\n")
    assert packages.build(requirements.from_file(tmp_path / "requirements.txt"), X86).versions == {"only-there": "1.0"}


def test_hashes_in_a_requirements_file_are_held(index, tmp_path):
    import hashlib

    path = wheel(index, "thing")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = tmp_path / "requirements.txt"
    file.write_text(f"thing==1.0 \\\n    --hash=sha256:{digest}\n")
    assert packages.build(requirements.from_file(file), X86).versions == {"thing": "1.0"}
    file.write_text(f"thing==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(DeploymentError, match=r"(?i)hash"):
        packages.build(requirements.from_file(file), X86)


def test_a_requirements_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / "requirements.txt").write_text("-r missing.txt\n")
    with pytest.raises(ConfigError, match=r"missing\.txt cannot be read"):
        requirements.from_file(tmp_path / "requirements.txt")
    (tmp_path / "requirements.txt").write_text("-r requirements.txt\n")
    with pytest.raises(ConfigError, match="files that name files"):
        requirements.from_file(tmp_path / "requirements.txt")


def test_a_lock_is_taken_without_its_project_and_its_development_groups(index, tmp_path):
    import uv

    for name in ("used", "below", "tool", "more"):
        wheel(index, name, needs=["below"] if name == "used" else ())
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1.0"\nrequires-python = ">=3.11"\ndependencies = ["used"]\n'
        '[project.optional-dependencies]\nextra = ["more"]\n[dependency-groups]\ndev = ["tool"]\n'
    )
    subprocess.run([uv.find_uv_bin(), "lock", "--quiet", "--python", sys.executable], cwd=folder, check=True)
    wheel(index, "below", "2.0")
    assert packages.build(requirements.from_lock(folder / "uv.lock"), X86).versions == {"below": "1.0", "used": "1.0"}
    with_extra = packages.build(requirements.from_lock(folder, ["extra"]), X86)
    assert set(with_extra.versions) == {"below", "more", "used"}


def test_what_is_no_lock_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no uv\.lock: make one with `uv lock`"):
        requirements.from_lock(tmp_path / "uv.lock")
    (tmp_path / "uv.lock").write_text("version = 1")
    with pytest.raises(ConfigError, match=r"has no pyproject\.toml beside it"):
        requirements.from_lock(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\nrequires-python = '>=3.11'\n")
    (tmp_path / "uv.lock").write_text("nonsense")
    with pytest.raises(DeploymentError, match=r"uv\.lock could not be read"):
        requirements.from_lock(tmp_path)
