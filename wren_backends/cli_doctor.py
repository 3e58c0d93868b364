"""`wren doctor`: whether all is as it has to be for calls to run, and what to type where it is not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from wren_backends.config import Config
from wren_backends.terminal import harmless

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "bold red", "unknown": "dim"}
_WHAT_CHARS = 22


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Examine what calls will run on, and make one.

    Exits with 1 if anything fails. On AWS: credentials, clock, region, bucket, function, role, concurrency, logs and
    packages. Otherwise the local cloud. What you have no right to look at is "unknown" and says which right that takes.
    Nothing is changed.
    """
    from wren_backends.doctor import examine

    console, failed, findings = Console(highlight=False, soft_wrap=True), False, []
    for finding in examine(Config.load()):
        failed = failed or finding.status == "fail"
        if as_json:
            findings.append(asdict(finding))
            continue
        line = Text(f"{finding.status:<8}", style=_COLOURS[finding.status])
        line.append(f"{finding.what:<{_WHAT_CHARS}} {_one_line(finding.found)}", style="default not bold")
        console.print(line)
        if finding.fix:
            console.print(Text(f"{'':<8}{'':<{_WHAT_CHARS}} fix: {_one_line(finding.fix)}"))
    if as_json:
        click.echo(json.dumps(findings))
    if failed:
        sys.exit(1)


def _one_line(text: str) -> str:
    return harmless(" ".join(text.split()))
