"""The steps of `wren setup` one by one, under the names that PyWren gave them: settings, role, function."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import click

from wren_backends import cli_aws
from wren_backends.config import Config
from wren_backends.errors import ConfigError, DeploymentError

AGAIN = "wren deploy_lambda"


@click.command(name="create_config")
@cli_aws.place_options
@cli_aws.function_options
@click.option("--prefix", metavar="PREFIX", help="Key prefix in the bucket.")
@click.option("--force", is_flag=True, help="Replace values that the file has already.")
@cli_aws.json_option
def create_config(force: bool, as_json: bool, **options: Any) -> None:
    """Write settings for all of your projects.

    They go to your own file. What it says otherwise stays; a value that it has already is replaced with --force only.
    """
    from wren_backends.deploy.settings_file import SettingsFile
    from wren_backends.deploy.setup import settings_step

    values = cli_aws.given(options)
    if not values:
        raise ConfigError("create_config needs something to write, such as --bucket_name; `wren setup` finds all of it")
    Config.load(**values)  # says what is wrong with them
    file = SettingsFile()
    step = settings_step(values, file.values(), str(file.path))
    replaced = [
        name for name in values if name in file.values() and step.changes and " instead of " in step.changes[0].says
    ]
    clashing = [name for name in replaced if name in step.changes[0].parameters["values"]]
    if clashing and not force:
        raise ConfigError(
            f"{file.path} has {', '.join(clashing)} already ({step.changes[0].says}): replace with --force"
        )
    cli_aws.carry_out_step(step, _file_parts(file), "wren create_config", quiet=True)
    if as_json:
        cli_aws.print_json(step.shown())
        return
    click.echo(f"{file.path}: {step.changes[0].says if step.changes else 'unchanged'}")
    for name, beaten_by in cli_aws.beaten(values).items():
        click.echo(f"Mind that {beaten_by} says otherwise about {name}, and is stronger.", err=True)


def _file_parts(file: Any) -> Any:
    return {"settings": file}


@click.command(name="create_role")
@click.option("--name", help="Name of the role. Default: the function's, with -worker behind it.")
@click.option("--adopt", is_flag=True, help="Take over a role of that name that was made otherwise.")
@click.option(
    "--whole-bucket",
    is_flag=True,
    help="Let the worker write and list all of a bucket of its own; only if deploy_lambda asks for it.",
)
@click.option("--print", "only_print", is_flag=True, help="Print all policies as JSON; ask and change nothing on AWS.")
def create_role(name: str | None, adopt: bool, whole_bucket: bool, only_print: bool) -> None:
    """Make or update the role that the function runs as.

    It may use the prefix of the bucket that `wren config` shows and write the function's own logs, nothing else. Those
    who run calls need rights of their own: `--print` shows them as "client", beside "worker" and its "trust".
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy import policies, role
    from wren_backends.deploy.session import aws_session, partition_of
    from wren_backends.deploy.setup import AwsParts, Wanted, functions_beside

    settings = cli_aws.with_bucket(Config.load(), "create_role")
    session = aws_session(settings.region)
    settings = replace(settings, region=session.region_name)
    role_name = name or role.default_role_name(settings.function)
    sizes = settings.sizes_beside(settings.memory_mb)
    wanted = Wanted(settings, "*", partition_of(settings.region), role_name, whole_bucket=whole_bucket)
    if only_print:
        scope = wanted.scope(sizes)
        documents = {
            "trust": policies.trust_policy(),
            "worker": policies.worker_policy(scope),
            "client": policies.client_policy(scope),
        }
        click.echo(json.dumps(documents, indent=2))
        return
    account, partition = cli_aws.account_of(session)
    parts = AwsParts(session)
    try:
        beside = {**sizes, **functions_beside(parts["lambda"], settings)}
        found = role.look(parts["iam"], role_name)
    except ClientError as error:
        raise DeploymentError(role.refused(role_name, error)) from error
    except BotoCoreError as error:
        raise DeploymentError(f"role {role_name!r} was not made: {error}; check credentials and network") from error
    ordered = dict(sorted(beside.items(), key=lambda one: one[1]))  # as `wren setup` has them
    scope = replace(wanted.scope(ordered, found), account=account, partition=partition)
    made = role.create_role(parts["iam"], role_name, scope, adopt=adopt)
    click.echo(
        f"{made.arn}: {made.change}. It may use {scope.place} and write the logs of function "
        f"{' and '.join(scope.functions)}."
    )
    if made.others:
        click.echo(f"It has other policies too, which were left alone: {', '.join(made.others)}.")
    click.echo(f"Next: wren deploy_lambda --role {made.arn}")


@click.command(name="deploy_lambda")
@click.option("--role", help="ARN of the role that the function runs as. Default: the one it has, or `create_role`'s.")
@click.option("--adopt", is_flag=True, help="Take over a function of that name that is none of wren's.")
@cli_aws.place_options
@cli_aws.function_options
@cli_aws.package_options
@click.option("--environment", is_flag=True, help="Give it the packages of this environment.")
@cli_aws.dry_run_option
@cli_aws.json_option
def deploy_lambda(
    role: str | None,
    adopt: bool,
    packages: tuple[str, ...],
    requirements: str | None,
    lock: str | None,
    nearest_versions: bool,
    environment: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Create the function on AWS, or bring it up to date.

    What is not given is as `wren config` shows it, and otherwise stays as the function has it, its packages too. It
    runs this environment's Python. Functions of other sizes that stand beside it are brought up to date too.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy import bucket, function
    from wren_backends.deploy.packages_step import requirements_of
    from wren_backends.deploy.plan import Plan
    from wren_backends.deploy.session import aws_session
    from wren_backends.deploy.setup import AwsParts, deployment_steps

    if role and not re.fullmatch(r"arn:[\w-]+:iam::\d+:role/.+", role):
        raise ConfigError(
            f"--role {role!r} is no ARN of a role, such as arn:aws:iam::123456789012:role/{role.split(':')[-1]}: "
            "`wren create_role` prints it"
        )
    settings = cli_aws.with_bucket(Config.load(**cli_aws.given(options)), "deploy_lambda")
    session = aws_session(settings.region)
    settings = replace(settings, region=session.region_name)
    account, _ = cli_aws.account_of(session)
    parts = AwsParts(session)
    wanted = None
    if packages or requirements or lock or environment:
        wanted = requirements_of(packages, requirements, lock, nearest=nearest_versions)
    try:
        bucket.check(parts["s3"], str(settings.bucket), account)
        if wanted is not None:
            base = function.look(parts["lambda"], settings.function)
            parts.add("packages", cli_aws.built(wanted, settings, base, parts, account, quiet=as_json))
        steps = deployment_steps(parts, settings, role or "", adopt=adopt)
        if not dry_run and steps[0].what == "packages":
            cli_aws.carry_out_step(steps[0], parts, AGAIN, quiet=True)
            steps[1:] = deployment_steps(parts, settings, role or "", adopt=adopt)[1:]  # with them published
    except (BotoCoreError, ClientError) as error:
        raise cli_aws.refused(f"function {settings.function!r} was not deployed", error, AGAIN) from error
    for step in () if dry_run else (one for one in steps if one.what != "packages"):
        cli_aws.carry_out_step(step, parts, AGAIN, quiet=True)
    if as_json:
        cli_aws.print_json([step.shown() for step in steps])
    elif dry_run:
        cli_aws.show(Plan(tuple(steps)))
    else:
        for step in steps:
            said = "; ".join(change.says for change in step.changes if change.says)
            click.echo(f"{step.name}: {said or 'unchanged'}")
        cli_aws.say_refusals(parts)
