"""`wren setup`: everything that jobs need on AWS, shown before it is done, and done once however often it is asked."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from wren_backends import cli_aws
from wren_backends.cli_aws import AGAIN
from wren_backends.config import DEFAULT_MEMORY_MB, Config
from wren_backends.errors import ConfigError, WrenError

if TYPE_CHECKING:  # each command imports what it needs, so that the others start quickly
    from wren_backends.deploy.plan import Plan
    from wren_backends.deploy.requirements import Requirements
    from wren_backends.deploy.setup import AwsParts, Found, Wanted

_FALLBACK_REGION = "us-east-1"


@click.command()
@cli_aws.place_options
@cli_aws.function_options
@cli_aws.package_options
@click.option("--no-packages", is_flag=True, help="Leave the function's packages as they are.")
@click.option("--role-name", metavar="NAME", help="Name of the role. Default: the function's, with -worker behind it.")
@click.option("--adopt", is_flag=True, help="Take over a role and a function of these names that were made otherwise.")
@click.option("--whole-bucket", is_flag=True, help="As of `wren create_role`.")
@click.option(
    "--block-public-access/--keep-public-access",
    "block_public",
    default=None,
    help="What to do about public access to a bucket of yours. Default: leave it, and refuse one with a public policy.",
)
@click.option("--no-config", is_flag=True, help="Write no settings file.")
@click.option("--no-test", is_flag=True, help="Make no test call.")
@cli_aws.dry_run_option
@cli_aws.yes_option
@cli_aws.json_option
@click.option("--print-policy", is_flag=True, help="Print the rights that set-up, jobs and clean-up take; ask no AWS.")
@click.option("--template", is_flag=True, help="Print a CloudFormation template instead; ask no AWS.")
@click.option(
    "--code", "code_file", type=click.Path(dir_okay=False, writable=True), help="Write the function's zip to this file."
)
def setup(
    role_name: str | None,
    adopt: bool,
    whole_bucket: bool,
    block_public: bool | None,
    no_config: bool,
    no_test: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    print_policy: bool,
    template: bool,
    code_file: str | None,
    packages: tuple[str, ...],
    requirements: str | None,
    lock: str | None,
    nearest_versions: bool,
    no_packages: bool,
    **options: Any,
) -> None:
    """Set up AWS with one command.

    That is settings, bucket, role, packages, function and a test call. It says what it is going to do and asks. Done
    twice it changes nothing the second time; interrupted, it goes on where it stopped. `wren cleanup` removes what it
    has made.
    """
    chosen = _with_earlier_sizes(cli_aws.given(options))
    if print_policy or template or code_file:
        _print_instead(chosen, role_name, print_policy=print_policy, template=template, code_file=code_file)
        return
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json needs --yes or --dry-run, as it cannot ask")
    from wren_backends.deploy.packages_step import requirements_of
    from wren_backends.deploy.session import aws_session
    from wren_backends.deploy.setup import AwsParts

    asked = not (yes or dry_run) and sys.stdin.isatty()
    settings = cli_aws.on_aws(Config.load(**(_asked_for_region(chosen) if asked else chosen)))
    session = aws_session(settings.region)
    account, partition = cli_aws.account_of(session)
    parts = AwsParts(session)
    settings = replace(settings, region=session.region_name)
    settings = _with_bucket(_asked_for_the_rest(settings, chosen) if asked else settings, parts, account)
    wanted = _wanted(settings, chosen, account, partition, role_name)
    wanted = replace(wanted, adopt=adopt, whole_bucket=whole_bucket, block_public=block_public)
    wanted = replace(wanted, values={}) if no_config else wanted
    chosen_packages = None if no_packages else requirements_of(packages, requirements, lock, nearest=nearest_versions)
    found, plan = _planned(parts, wanted, chosen_packages, quiet=as_json)
    role_arn = found.role.arn or wanted.role_arn
    if not as_json:
        _say_what_is_planned(plan, wanted, parts)
    if dry_run:
        if as_json:
            cli_aws.print_json(_as_json(plan, wanted, role_arn, done=False))
        return
    if plan.changes and not yes:
        cli_aws.confirm("Do this?")
    _carry_out(plan, parts, wanted, found, quiet=as_json)
    answer = None if no_test else _test(settings)
    if as_json:
        cli_aws.print_json({**_as_json(plan, wanted, role_arn, done=True), "test": answer})
    else:
        _say_what_is_there(plan, wanted, parts, answer)


def _with_earlier_sizes(chosen: dict[str, Any]) -> dict[str, Any]:
    """Options, with `--size` beside the sizes that are configured: their functions stay."""
    if "sizes_mb" not in chosen:
        return chosen
    return {**chosen, "sizes_mb": tuple(sorted({*Config.load().sizes_mb, *chosen["sizes_mb"]}))}


def _asked_for_region(chosen: dict[str, Any]) -> dict[str, Any]:
    """Options, with a region where neither they nor boto3 have one."""
    from wren_backends.deploy.session import default_region

    if Config.load(**chosen).region or default_region():
        return chosen
    return {**chosen, "region": click.prompt("AWS region", default=_FALLBACK_REGION)}


def _asked_for_the_rest(settings: Config, chosen: dict[str, Any]) -> Config:
    """Settings, with the user's answers about what is configured nowhere."""
    origins = Config.origins()
    if "function" not in chosen and "function" not in origins:
        settings = replace(settings, function=click.prompt("Name of the function", default=settings.function))
        chosen["function"] = settings.function
    if settings.memory_mb is None:
        memory_mb = click.prompt("Memory of the function in MB (1769 is one vCPU)", DEFAULT_MEMORY_MB, type=int)
        if memory_mb != DEFAULT_MEMORY_MB:
            chosen["memory_mb"] = memory_mb
            settings = Config.load(**{**chosen, "region": settings.region})
    if not settings.bucket:
        named = click.prompt("Bucket (Enter for a new one of your own)", default="", show_default=False)
        settings = replace(settings, bucket=named or None)
    return settings


def _with_bucket(settings: Config, parts: AwsParts, account: str) -> Config:
    """Settings, with a bucket that was made before, or the name of one that nobody can have taken."""
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy import bucket

    if settings.bucket:
        return settings
    region = str(settings.region)
    try:
        found = bucket.find_ours(parts["s3"], account, region, settings.function)
    except (BotoCoreError, ClientError) as error:
        raise cli_aws.refused("what buckets there are cannot be seen", error, AGAIN) from error
    return replace(settings, bucket=found or bucket.new_name(account, region))


def _wanted(settings: Config, chosen: dict[str, Any], account: str, partition: str, role_name: str | None) -> Wanted:
    """What there has to be; the user's file gets what was chosen and found out and is not in force yet."""
    from wren_backends.deploy.role import default_role_name
    from wren_backends.deploy.setup import Wanted

    values = {**chosen, "bucket": settings.bucket, "region": settings.region}
    in_force = Config.load()
    values = {name: value for name, value in values.items() if getattr(in_force, name) != value}
    return Wanted(settings, account, partition, role_name or default_role_name(settings.function), values)


def _planned(parts: AwsParts, wanted: Wanted, requirements: Requirements | None, *, quiet: bool) -> tuple[Found, Plan]:
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy import setup

    try:
        found = setup.look(parts, wanted)
        if requirements is not None:
            base = found.functions[wanted.config.function]
            parts.add("packages", cli_aws.built(requirements, wanted.config, base, parts, wanted.account, quiet=quiet))
        # This looks for the packages where they may have been published before.
        return found, setup.plan(wanted, found, str(parts["settings"].path), parts.get("packages"))
    except (BotoCoreError, ClientError) as error:
        raise cli_aws.refused("what there is on AWS cannot be seen", error, AGAIN) from error


def _say_what_is_planned(plan: Plan, wanted: Wanted, parts: AwsParts) -> None:
    place = cli_aws.place_of(parts, wanted.account, wanted.config.region)
    click.echo(f"{place} this is to be:" if plan.changes else f"{place} everything is as it has to be:")
    cli_aws.show(plan)
    if cli_aws.not_aws(parts) and any(step.what == "settings" and step.changes for step in plan.steps):
        click.echo(
            "Mind that these settings send programs that have no AWS_ENDPOINT_URL to AWS, until `wren cleanup`: give "
            "--no-config to leave your settings file alone.",
            err=True,
        )


def _carry_out(plan: Plan, parts: AwsParts, wanted: Wanted, found: Found, *, quiet: bool) -> None:
    from wren_backends.deploy.setup import function_steps

    for step in (one for one in plan.steps if one.what != "function"):
        cli_aws.carry_out_step(step, parts, AGAIN, quiet=quiet)
    for step in function_steps(wanted, found, parts.get("packages")):  # with the packages as they are now
        cli_aws.carry_out_step(step, parts, AGAIN, quiet=quiet)


def _test(settings: Config) -> dict[str, Any]:
    """Make one call on what was set up."""
    from wren_backends.connection import forget
    from wren_backends.executor import WrenExecutor

    target = replace(settings, cloud="aws")
    forget(target)  # what this process may have known of the function is of before
    try:
        with WrenExecutor(1, config=target) as executor:
            answer = executor.submit(divmod, 42, 5).result()
            return {"function": executor.connection.function, "answer": list(answer)}
    except WrenError as error:
        raise type(error)(f"everything is set up, but the test call failed: {error}") from error


def _as_json(plan: Plan, wanted: Wanted, role_arn: str, *, done: bool) -> dict[str, Any]:
    return {
        "account": wanted.account,
        "region": wanted.config.region,
        "bucket": wanted.bucket,
        "function": wanted.config.function,
        "role": role_arn,
        "done": done,
        "steps": [step.shown() for step in plan.steps],
    }


def _say_what_is_there(plan: Plan, wanted: Wanted, parts: AwsParts, answer: dict[str, Any] | None) -> None:
    if answer:
        click.echo(f"Test call: divmod(42, 5) = {tuple(answer['answer'])} on function {answer['function']}.")
    for name, where in cli_aws.beaten(wanted.values).items():
        click.echo(f"Mind that {where} says otherwise about {name} than your settings file, and is stronger.", err=True)
    cli_aws.say_refusals(parts)
    click.echo("Done." if plan.changes else "Nothing had to be changed.")


def _print_instead(
    chosen: dict[str, Any], role_name: str | None, *, print_policy: bool, template: bool, code_file: str | None
) -> None:
    from wren_backends.deploy import permissions
    from wren_backends.deploy.function import FoundFunction
    from wren_backends.deploy.package import function_zip
    from wren_backends.deploy.role import default_role_name
    from wren_backends.deploy.session import default_region
    from wren_backends.deploy.setup import target_of

    settings = Config.load(**chosen)
    role = role_name or default_role_name(settings.function)
    settings = replace(settings, region=settings.region or default_region() or "*")
    if print_policy:
        cli_aws.print_json(permissions.all_policies(settings, role))
    if template:
        from wren_backends.deploy.template import template_of

        cli_aws.print_json(template_of(settings))
    if code_file:
        try:
            with open(code_file, "wb") as file:
                file.write(function_zip(target_of(settings, FoundFunction())))
        except OSError as error:
            raise ConfigError(f"{code_file} cannot be written: {error}") from error
