"""`wren cleanup`, and its steps one by one: removes what `wren setup` has made and nothing else."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import click

from wren_backends import cli_aws
from wren_backends.config import Config


@click.command()
@cli_aws.place_options
@click.option("--role-name", metavar="NAME", help="Name of the role. Default: the function's, with -worker behind it.")
@click.option(
    "--delete-foreign-objects",
    "foreign_too",
    is_flag=True,
    help="Delete a bucket that wren has made with objects in it that are not wren's.",
)
@click.option(
    "--delete-shared-objects",
    "shared_too",
    is_flag=True,
    help="In a bucket of your own, delete objects of jobs and packages that other functions with this prefix may have.",
)
@cli_aws.dry_run_option
@cli_aws.yes_option
@cli_aws.json_option
def cleanup(
    role_name: str | None,
    foreign_too: bool,
    shared_too: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Remove all that `wren setup` has made.

    That is functions, log groups, layers, role, bucket and settings. What it did not make, known by its tags, stays,
    and what a function needs that stays. It says what it is going to delete and asks; it asks once more before it
    deletes a bucket with objects that are not wren's.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy import cleanup as cleaning
    from wren_backends.deploy.emptying import Objects
    from wren_backends.deploy.role import default_role_name

    if as_json and not (yes or dry_run):
        raise click.UsageError("--json needs --yes or --dry-run, as it cannot ask")
    settings, parts, account = _opened(options)
    parts.add("objects", Objects(parts["s3"]))
    try:
        remains = cleaning.look(parts, settings, account, role_name or default_role_name(settings.function))
    except (BotoCoreError, ClientError) as error:
        raise cli_aws.refused("what there is on AWS cannot be seen", error, "wren cleanup") from error
    plan = cleaning.plan(remains, settings, account, foreign_too=foreign_too, shared_too=shared_too)
    if not as_json:
        _show(plan, settings, parts, account)
    if dry_run or not plan.changes:
        if as_json:
            cli_aws.print_json({"done": not dry_run, "steps": [step.shown() for step in plan.steps]})
        return
    if not yes:
        cli_aws.confirm("Delete this?")
        all_of_it = cleaning.plan(remains, settings, account, foreign_too=True, shared_too=shared_too)
        if (
            remains.bucket is not None
            and all_of_it != plan
            and sys.stdin.isatty()
            and click.confirm(f"Delete bucket {remains.bucket.name} with what is not wren's too?")
        ):
            plan = all_of_it
    for step in plan.steps:
        cli_aws.carry_out_step(step, parts, "wren cleanup", quiet=as_json)
    if as_json:
        cli_aws.print_json({"done": True, "steps": [step.shown() for step in plan.steps]})
    else:
        click.echo("Done.")


@click.command(name="delete_lambda")
@cli_aws.place_options
@cli_aws.yes_option
def delete_lambda(yes: bool, **options: Any) -> None:
    """Delete the function and its other sizes. Only if wren has made them."""
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy import cleanup as cleaning
    from wren_backends.deploy import function
    from wren_backends.deploy.setup import functions_beside

    settings, parts, _ = _opened(options)
    client = parts["lambda"]
    try:
        names = [settings.function, *functions_beside(client, settings)]
        steps = [cleaning.function_step(name, function.look(client, name), settings.function) for name in names]
    except (BotoCoreError, ClientError) as error:
        what = f"what there is of function {settings.function!r} cannot be seen"
        raise cli_aws.refused(what, error, "wren delete_lambda") from error
    _delete(steps, parts, f"function {settings.function!r}", "wren delete_lambda", yes=yes)


@click.command(name="delete_role")
@click.option("--role-name", metavar="NAME", help="Name of the role. Default: the function's, with -worker behind it.")
@cli_aws.place_options
@cli_aws.yes_option
def delete_role(role_name: str | None, yes: bool, **options: Any) -> None:
    """Delete the role of the function, if wren has made it."""
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy import cleanup as cleaning
    from wren_backends.deploy import role

    settings, parts, _ = _opened(options)
    name = role_name or role.default_role_name(settings.function)
    try:
        step = cleaning.role_step(role.look(parts["iam"], name), settings.function)
    except (BotoCoreError, ClientError) as error:
        raise cli_aws.refused(f"role {name!r} cannot be seen", error, "wren delete_role") from error
    _delete([step], parts, f"role {name!r}", "wren delete_role", yes=yes)


def _opened(options: dict[str, Any]) -> tuple[Config, Any, str]:
    """Settings with a region, clients, and the account's number."""
    from wren_backends.deploy.session import aws_session
    from wren_backends.deploy.setup import AwsParts

    settings = cli_aws.on_aws(Config.load(**cli_aws.given(options)))
    session = aws_session(settings.region)
    account, _ = cli_aws.account_of(session)
    return replace(settings, region=session.region_name), AwsParts(session), account


def _show(plan: Any, settings: Config, parts: Any, account: str) -> None:
    place = cli_aws.place_of(parts, account, settings.region)
    click.echo(f"{place} this is to be:" if plan.steps else f"{place} nothing of wren's is left.")
    cli_aws.show(plan)


def _delete(steps: list[Any], parts: Any, what: str, again: str, *, yes: bool) -> None:
    from wren_backends.deploy.plan import Plan

    plan = Plan(tuple(step for step in steps if step.state != "unchanged"))
    if not plan.steps:
        click.echo(f"There is no {what}.")
        return
    cli_aws.show(plan)
    if plan.changes and not yes:
        cli_aws.confirm("Delete this?")
    for step in plan.steps:
        cli_aws.carry_out_step(step, parts, again)
