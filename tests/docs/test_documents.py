"""What the documents say is true: code blocks run, tables match the code, paths and commands exist."""

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from wren_backends import Config
from wren_backends.deploy.permissions import cleanup_policy, setup_policy
from wren_backends.deploy.policies import Scope, client_policy, worker_policy

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("block", BLOCKS)
def test_code_blocks_run(block, run_script):
    done = run_script(block)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "the block should show what it computed"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(example, cloud, tmp_path):
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_there_are_blocks_and_examples():
    assert len(BLOCKS) == 7
    assert EXAMPLES


def test_links_between_documents_lead_somewhere():
    for document in (*PAGES, "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"):
        folder = (ROOT / document).parent
        for name in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / document).read_text()):
            assert (folder / name).exists(), f"{document}: {name}"


def test_the_table_of_settings_is_the_codes():
    assert Config.table() in (ROOT / "docs" / "settings.md").read_text()


def test_make_targets_named_in_the_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in (*PAGES, "CONTRIBUTING.md"):
        for line in re.findall(r"^make ([a-z -]+?)(?:\s+#.*)?$", (ROOT / document).read_text(), re.MULTILINE):
            assert set(line.split()) <= targets, line


def test_the_tests_on_aws_refuse_to_run_without_a_bucket_of_yours():
    environment = {name: value for name, value in os.environ.items() if name != "WREN_BUCKET"}
    done = subprocess.run(
        ["make", "-s", "on-aws"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "set WREN_BUCKET" in done.stderr
    assert "credentials" in done.stderr


def test_files_named_in_the_documents_exist():
    for document in (*PAGES, "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"):
        for name in re.findall(
            r"`(?:python )?((?:benchmarks|examples|wren_backends|lambda_worker|local)/[\w./]*)",
            (ROOT / document).read_text(),
        ):
            assert (ROOT / name).exists() or (ROOT / "wren_backends" / name).exists(), f"{document}: {name}"


def rights(who, policy):
    """The rows of SECURITY.md's table that a policy makes."""
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        to = _code(one.split(":", 5)[-1] for one in statement["Resource"])
        conditions = statement.get("Condition", {})
        if "StringLike" in conditions:
            to += f" where the listed prefix is {_code(conditions.pop('StringLike').pop('s3:prefix'))}"
        if "StringEquals" in conditions:
            to += f" for {_code([conditions.pop('StringEquals').pop('iam:PassedToService')])}"
        assert not conditions
        yield f"| {who} | {_code(statement['Action'])} | {to} |"


def _code(words):
    return " ".join(f"`{word}`" for word in words)


def test_the_table_of_rights_is_that_of_the_policies():
    scope = Scope("FUNCTION", "BUCKET", "PREFIX", "REGION", "ACCOUNT")
    expected = [
        *rights("worker", worker_policy(scope)),
        *rights("client", client_policy(scope)),
        *rights("setup", setup_policy(scope, "ROLE")),
        *rights("cleanup", cleanup_policy(scope, "ROLE")),
    ]
    found = re.findall(r"^\| (?:worker|client|setup|cleanup) \| .*$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert found == expected


def test_every_file_of_the_library_has_its_room():
    """ARCHITECTURE.md names each file of `wren_backends/`, or its folder, or its kind as `cli_*.py`."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = text[text.index("## Rooms") : text.index("## Words")]
    patterns = re.findall(r"`([\w*]+(?:\.py|/))`", rooms)
    here = ROOT / "wren_backends"
    names = [path.name for path in here.glob("*.py") if path.name != "__init__.py"]
    folders = [f"{path.name}/" for path in here.iterdir() if (path / "__init__.py").exists()]
    assert [one for one in (*names, *folders) if not any(fnmatch(one, pattern) for pattern in patterns)] == []
    found = {path.name for top in ("wren_backends", "lambda_worker") for path in (ROOT / top).rglob("*.py")}
    assert [one for one in patterns if one.endswith(".py") and "*" not in one and one not in found] == []
