"""Support: `fastrunner protos`: gives out the published .proto files that this version was made from.

Rules: a file that is there with other content is never overwritten unasked; nothing is written when one is in the way.
"""

import sys
from importlib.resources import files
from pathlib import Path

import click

from fastrunner.base.printable import printable

EXIT_NOT_WRITTEN = 2


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
def protos(directory: Path, force: bool) -> None:
    """Write the .proto files into DIRECTORY, to generate clients from.

    \b
    fastrunner protos protos
    python -m grpc_tools.protoc -I protos --python_out=. $(find protos -name '*.proto')

    They import nothing but what comes with protoc. Python programs find what is generated in fastrunner.api. Exits
    with 2 if a file of that name with other content is there, or one cannot be written.
    """
    contents = _published()
    try:
        if not force:
            _refuse_others(directory, contents)
        for name, content in contents.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            click.echo(printable(str(path)))
    except OSError as error:
        _leave(f"{error.filename or directory} cannot be written: {error.strerror}")


def _published() -> dict[str, bytes]:
    """Content of each file, by its path below the folder that protoc is given with -I."""
    pending = [("", files("fastrunner") / "protos")]
    contents = {}
    for prefix, place in pending:
        for entry in place.iterdir():
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", entry))
            elif entry.name.endswith(".proto"):
                contents[prefix + entry.name] = entry.read_bytes()
    return dict(sorted(contents.items()))


def _refuse_others(directory: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        path = directory / name
        if path.exists() and (not path.is_file() or path.read_bytes() != content):
            _leave(f"{path} is there and differs: nothing was written; name another folder, or overwrite with --force")


def _leave(line: str) -> None:
    click.echo(printable(f"fastrunner: {line}"), err=True)
    sys.exit(EXIT_NOT_WRITTEN)
