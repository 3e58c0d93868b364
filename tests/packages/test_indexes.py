"""Where packages come from: uv's own configuration, and pip's where uv has none."""

import pytest

from wren_backends.deploy import packages, requirements
from wren_backends.deploy.indexes import indexes_for_uv
from wren_backends.deploy.target import Target

from .wheels import wheel

X86 = Target((3, 13), "x86_64")


@pytest.fixture
def home(tmp_path):
    """What the environment says of a user who has configured nothing yet."""
    (tmp_path / "pip").mkdir()
    return {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "other.conf")}


def told(environment, tmp_path):
    found = indexes_for_uv(environment, tmp_path)
    return {
        name: value for name, value in found.variables.items() if "INDEX" in name or "LINKS" in name
    }, found.arguments


def test_pip_s_variables_are_passed_on(home, tmp_path):
    home |= {
        "PIP_INDEX_URL": "https://user:secret@mine/simple",
        "PIP_EXTRA_INDEX_URL": "https://a/simple https://b/simple",
        "PIP_FIND_LINKS": "/one /two",
        "PIP_NO_INDEX": "1",
    }
    variables, arguments = told(home, tmp_path)
    assert variables == {
        "UV_DEFAULT_INDEX": "https://user:secret@mine/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/one,/two",
    }
    assert arguments == ("--no-index",)


def test_pip_s_files_are_passed_on_and_its_variables_beat_them(home, tmp_path):
    (tmp_path / "pip" / "pip.conf").write_text("[global]\nindex-url = https://file/simple\nfind-links = /links\n")
    (tmp_path / "other.conf").write_text("[install]\nfind_links =\n  /more\n  /links\n")
    variables, _ = told(home, tmp_path)
    assert variables["UV_DEFAULT_INDEX"] == "https://file/simple"
    assert variables["UV_FIND_LINKS"] == "/more,/links"
    variables, _ = told({**home, "PIP_INDEX_URL": "https://variable/simple"}, tmp_path)
    assert variables["UV_DEFAULT_INDEX"] == "https://variable/simple"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("uv.toml", "index-url = 'https://uv/simple'"),
        ("pyproject.toml", "[[tool.uv.index]]\nurl = 'https://uv/simple'"),
        ("uv/uv.toml", "[pip]\nextra-index-url = ['https://uv/simple']"),
    ],
)
def test_uv_s_own_configuration_is_left_alone(home, tmp_path, file, text):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert told({**home, "PIP_INDEX_URL": "https://pip/simple"}, tmp_path) == ({}, ())


def test_uv_s_own_variables_are_left_alone(home, tmp_path):
    home |= {"UV_DEFAULT_INDEX": "https://uv/simple", "PIP_INDEX_URL": "https://pip/simple"}
    assert told(home, tmp_path) == ({}, ())


def test_packages_come_from_where_pip_would_take_them(tmp_path, monkeypatch, index):
    for name in ("UV_CONFIG_FILE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    wheel(index, "nobody-else-has-this")
    built = packages.build(requirements.from_names(["nobody-else-has-this"]), X86)
    assert built.versions == {"nobody-else-has-this": "1.0"}
