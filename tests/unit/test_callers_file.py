"""Support: the file of callers: what its lines say, and what is refused."""

from hashlib import sha256
from pathlib import Path

import pytest

from fastrunner.access.callers import CallersFile, digest_of, line_of, read_callers
from fastrunner.access.principal import ALL_ROLES, Principal, Role, check_namespace
from fastrunner.base import limits
from fastrunner.errors import PermissionDenied

HASH = sha256(b"token").hexdigest()


def test_lines(tmp_path: Path) -> None:
    file = tmp_path / "callers"
    file.write_text(
        f"# a comment\n\n  name=ci roles=submit,read namespaces=shop,billing sha256={HASH}\n"
        "name=gateway roles=admin certificate=spiffe://example/gateway\n"
        f"{line_of('dev', 'control', '', 'another')}\n"
    )
    callers = read_callers(file)
    assert callers.of_digest(digest_of("token")) == Principal(
        "token:ci", frozenset({Role.SUBMIT, Role.READ}), frozenset({"shop", "billing"})
    )
    assert callers.of_digest(digest_of("another")) == Principal("token:dev", frozenset({Role.CONTROL}))
    assert callers.of_digest(digest_of("Token")) is None
    assert callers.certificates == {"spiffe://example/gateway": Principal("certificate:gateway", ALL_ROLES)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no caller"),
        ("# nobody\n", "names no caller"),
        (f"roles=read sha256={HASH}", "line 1 needs name="),
        (f"name=a sha256={HASH}", "line 1 needs roles="),
        (f"\nname=a roles=root sha256={HASH}", "line 2 needs roles=, some of read, submit, control, admin"),
        ("name=a roles=read", "line 1 needs one of sha256= and certificate="),
        (f"name=a roles=read sha256={HASH} certificate=b", "line 1 needs one of"),
        ("name=a roles=read sha256=token", "line 1 needs sha256= of 64 hexadecimal digits"),
        ("name=a roles=read certificate=", "line 1 needs a name after certificate="),
        (f"name=a roles=read namespaces= sha256={HASH}", "line 1 has namespaces= that are no names"),
        (f"name=a name=b roles=read sha256={HASH}", "line 1 has name twice"),
        (f"name=a roles=read sha256={HASH}\nname=b roles=read sha256={HASH}", "line 2 has the sha256 of another"),
        ("name=a roles=read certificate=b\nname=c roles=read certificate=b", "line 2 names a certificate"),
        ("name=a roles=read my-own-secret", "line 1 has a word that is none of"),
        ("x" * (limits.CALLERS_SIZE_BYTES_MAX + 1), "has more than 1048576 bytes"),
        ("\udcff", "is no UTF-8 text"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, why: str) -> None:
    """The line is named, and nothing that may be a secret repeated."""
    file = tmp_path / "callers"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="FASTRUNNER_CALLERS_FILE=") as refused:
        CallersFile(file)
    assert why in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["a b", "", "a\nname=b", "x" * 65])
def test_lines_of_no_use_are_not_made(name: str) -> None:
    with pytest.raises(ValueError, match=r"line 1|white space"):
        line_of(name, "read", "", "token")


def test_namespaces() -> None:
    """No principal, or one without namespaces, has all; one with none has none."""
    check_namespace(None, "shop")
    check_namespace(Principal("token:a", frozenset()), "shop")
    check_namespace(Principal("token:a", frozenset(), frozenset({"shop"})), "shop")
    with pytest.raises(PermissionDenied, match="its namespaces are none"):
        check_namespace(Principal("token:a", frozenset(), frozenset()), "shop")
