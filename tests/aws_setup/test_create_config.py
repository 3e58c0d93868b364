"""`wren create_config` writes the user's file, and never over what is there without being told to."""

import json
import os
from pathlib import Path

import pytest

from wren_backends import Config


@pytest.fixture
def file(account):
    return Path(os.environ["XDG_CONFIG_HOME"], "wren", "wren.toml")


@pytest.mark.parametrize("spelling", ["--bucket_name", "--bucket-name", "--bucket"])
def test_under_pywrens_name_and_its_like(wren, file, spelling):
    assert str(file) in wren("create_config", spelling, "mine").stdout
    assert Config.load().bucket == "mine"
    assert "unchanged" in wren("create-config", spelling, "mine").stdout


def test_what_is_there_stays_unless_it_is_forced(wren, file):
    file.parent.mkdir(parents=True)
    file.write_text('# my own\nbucket = "old"  # since May\nretries = 3\n')
    refused = wren("create_config", "--bucket", "new", "--memory", 512, status=1).stderr
    assert "bucket = 'new' instead of 'old'" in refused
    assert "--force" in refused
    assert Config.load().bucket == "old"
    said = json.loads(wren("create_config", "--bucket", "new", "--memory", 512, "--force", "--json").stdout)
    assert said["changes"] == ["bucket = 'new' instead of 'old', memory_mb = 512"]
    assert file.read_text().startswith("# my own\n")
    assert (Config.load().bucket, Config.load().memory_mb, Config.load().retries) == ("new", 512, 3)


def test_what_is_stronger_is_told(wren, file, monkeypatch):
    monkeypatch.setenv("WREN_BUCKET", "stronger")
    assert "environment says otherwise about bucket" in wren("create_config", "--bucket", "new").stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "--bucket_name"),
        (["--bucket", "No Bucket"], "bucket"),
        (["--subnet", "subnet-1"], "security_groups"),
        (["--tag", "nonsense"], "KEY=VALUE"),
        (["--memory", "1"], "at least 128"),
        (["--size", "99999"], "at most 10240"),
    ],
)
def test_what_is_wrong_is_said_and_not_written(wren, file, arguments, hint):
    assert hint in wren("create_config", *arguments, status=1).stderr
    assert not file.exists()


def test_a_file_that_cannot_be_read_is_not_replaced(wren, file):
    file.parent.mkdir(parents=True)
    file.write_text("bucket = ")
    assert "cannot be read" in wren("create_config", "--bucket", "new", status=1).stderr
    assert file.read_text() == "bucket = "


def test_lists_are_read_from_files_and_variables(wren, file, monkeypatch):
    wren("create_config", "--size", 512, "--size", 3008, "--tag", "a=b")
    assert (Config.load().sizes_mb, Config.load().tags) == ((512, 3008), ("a=b",))
    monkeypatch.setenv("WREN_SIZES_MB", "256, 1024")
    assert Config.load().sizes_mb == (256, 1024)
