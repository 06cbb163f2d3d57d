"""Support: `fastrunner token`: a new bearer token for a caller, and its line for the file of callers."""

import secrets

import click

from fastrunner.access.callers import line_of

_SIZE_BYTES = 32
_PREFIX = "frt_"
"""By which people, and programs that look for leaked secrets, know what it is."""


@click.command()
@click.argument("name")
@click.option("--roles", required=True, metavar="ROLE,...", help="Some of read, submit, control, admin.")
@click.option("--namespaces", default="", metavar="NAME,...", help="Only workflows of these; default: of all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def token(name: str, roles: str, namespaces: str, as_json: bool) -> None:
    """Make a token for the caller NAME.

    Prints the token, which is shown this once and kept nowhere, and the line for FASTRUNNER_CALLERS_FILE, which has its
    SHA-256 alone: 256 random bits need no slow hash.
    """
    made = _PREFIX + secrets.token_urlsafe(_SIZE_BYTES)
    try:
        line = line_of(name, roles, namespaces, made)
    except ValueError as error:
        raise click.UsageError(str(error).removeprefix("line 1 ")) from None
    if as_json:
        import orjson

        click.echo(orjson.dumps({"token": made, "line": line}).decode())
    else:
        click.echo(f"token: {made}\nline:  {line}")
