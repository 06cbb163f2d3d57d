"""The registry's file, alone: damage, a writer that does not end, a newer version, a disk that comes back."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from fastrunner.base import limits
from fastrunner.engine import DefinitionRef
from fastrunner.errors import Damaged, StorageFailed, UnknownWorkflow
from fastrunner.registry.file import RegistryFile

REF = DefinitionRef("shop", "order", "1.0.0")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[RegistryFile]:
    opened = RegistryFile(tmp_path)
    yield opened
    opened.close()


def connected(folder: Path) -> apsw.Connection:
    return apsw.Connection(str(folder / "registry.db"))


def test_a_damaged_document_is_told_and_comes_again(file: RegistryFile, tmp_path: Path) -> None:
    file.register(REF, "text", 1)
    other = connected(tmp_path)
    other.execute("update definitions set document = 'tixt'")
    with pytest.raises(Damaged, match="is damaged: register it again"):
        file.find(REF)
    assert not file.register(REF, "text", 2)
    found = file.find(DefinitionRef("shop", "order", ""))
    assert (found.ref, found.document, found.registered_ms, found.is_latest) == (REF, "text", 1, True)
    other.close()


def test_a_writer_that_does_not_end(file: RegistryFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others read on; a registration gives up after a while, and is taken again afterwards."""
    monkeypatch.setattr(limits, "SHARED_FILE_WAIT_MS_MAX", 50)
    file.register(REF, "text", 1)
    other = connected(tmp_path)
    other.execute("begin immediate")
    with pytest.raises(StorageFailed):
        file.register(DefinitionRef("shop", "order", "1.0.1"), "other", 2)
    assert file.find(REF).document == "text"
    other.execute("rollback")
    assert file.register(DefinitionRef("shop", "order", "1.0.1"), "other", 3)
    other.close()


def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    other = connected(tmp_path)
    other.execute("pragma user_version = 3")
    file = RegistryFile(tmp_path)
    with pytest.raises(StorageFailed, match="schema version 3, this version of fastrunner reads up to 2"):
        file.find(REF)
    other.execute("pragma user_version = 0")
    other.close()
    with pytest.raises(UnknownWorkflow):
        file.find(REF)
    file.close()


def test_a_folder_that_is_there_later(tmp_path: Path) -> None:
    file = RegistryFile(tmp_path / "later")
    with pytest.raises(StorageFailed):
        file.find(REF)
    (tmp_path / "later").mkdir()
    assert file.register(REF, "text", 1)
    file.close()
