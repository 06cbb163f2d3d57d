"""The registry that replicas share: what one has registered the others have, and of two texts one."""

import asyncio
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastrunner._core import Plan
from fastrunner._core import compile as compiled
from fastrunner.base import limits
from fastrunner.blobs import BlobStore, open_store
from fastrunner.engine import Definition, DefinitionRef
from fastrunner.errors import AlreadyRegistered, Damaged, UnknownWorkflow
from fastrunner.registry.shared import SharedRegistry
from tests.blob_stores import serving_s3
from tests.outside import require

require(find_spec("obstore"), "obstore", module=True)

LATEST = DefinitionRef("shop", "order", "")


@pytest.fixture(params=["file", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    if request.param == "file":
        yield open_store(f"file://{tmp_path}")
        return
    with serving_s3() as url:
        yield open_store(url)


def text_of(version: str, value: int = 1, name: str = "order", namespace: str = "shop") -> str:
    header = f"document: {{dsl: 1.0.3, namespace: {namespace}, name: {name}, version: {version}}}\n"
    return f"{header}do:\n- one: {{set: {{a: {value}}}}}\n"


async def register(registry: SharedRegistry, text: str) -> tuple[Definition, bool]:
    return await registry.register(compiled(text), text)


async def test_replicas_see_what_each_has_registered(store: BlobStore) -> None:
    """Every version, the highest one by its order, pages, and that one is gone."""
    one, other = SharedRegistry(store), SharedRegistry(store)
    with pytest.raises(UnknownWorkflow):
        await other.look_up(LATEST)
    definition, created = await register(one, text_of("1.2.0"))
    assert (str(definition.ref), definition.is_latest, created) == ("shop/order:1.2.0", True, True)
    assert (await other.look_up(LATEST)).document == text_of("1.2.0")
    for version in ("1.10.0", "1.10.0-rc.1", "1.9.0+build.5"):
        await register(other, text_of(version))
    for namespace, name in (("shop", "a"), ("archive", "order"), ("shop", "order-2")):
        await register(other, text_of("1.0.0", namespace=namespace, name=name))
    assert (await register(other, text_of("1.2.0")))[1] is False
    with pytest.raises(AlreadyRegistered):
        await register(other, text_of("1.2.0", 2))
    found = await one.look_up(LATEST)
    assert (found.ref.version, found.is_latest, found.document) == ("1.10.0", True, text_of("1.10.0"))
    assert not (await one.look_up(DefinitionRef("shop", "order", "1.2.0"))).is_latest
    everything = [
        "archive/order:1.0.0",
        "shop/a:1.0.0",
        "shop/order:1.10.0",
        "shop/order:1.10.0-rc.1",
        "shop/order:1.9.0+build.5",
        "shop/order:1.2.0",
        "shop/order-2:1.0.0",
    ]
    assert [str(each.ref) for each in await one.page("", "", None, None, 100)] == everything
    paged, after = [], None
    while page := await one.page("", "", None, after, 2):
        paged += [str(each.ref) for each in page]
        after = (page[-1].ref.namespace, page[-1].ref.name, page[-1].ref.version)
    assert paged == everything
    assert [str(each.ref) for each in await one.page("", "order", frozenset(["archive"]), None, 9)] == everything[:1]
    latest = [str(each.ref) for each in await one.page("shop", "order", None, None, 9) if each.is_latest]
    assert latest == ["shop/order:1.10.0"]
    await other.delete(found.ref)
    assert (await one.look_up(LATEST)).ref.version == "1.10.0-rc.1"
    with pytest.raises(UnknownWorkflow):
        await one.look_up(found.ref)
    with pytest.raises(UnknownWorkflow):
        await one.delete(found.ref)
    # What was kept of the one before is not what is there now.
    await register(other, text_of("1.10.0", 3))
    assert (await one.look_up(LATEST)).document == text_of("1.10.0", 3)


async def test_of_two_texts_one_is_registered(tmp_path: Path) -> None:
    registries = [SharedRegistry(open_store(f"file://{tmp_path}")) for _ in range(8)]
    ended = await asyncio.gather(
        *(register(registry, text_of("1.0.0", value)) for value, registry in enumerate(registries)),
        return_exceptions=True,
    )
    refused = [each for each in ended if isinstance(each, AlreadyRegistered)]
    [(definition, created)] = [each for each in ended if not isinstance(each, BaseException)]
    assert (len(refused), created) == (7, True)
    for registry in registries:
        assert (await registry.look_up(LATEST)).document == definition.document


async def test_a_damaged_document_is_told_and_comes_again(tmp_path: Path) -> None:
    registry = SharedRegistry(open_store(f"file://{tmp_path}"))
    await register(registry, text_of("1.0.0"))
    path = tmp_path / "registry" / "versions" / "shop" / "order" / "1.0.0"
    path.write_bytes(path.read_bytes().replace(b"set", b"sat"))
    with pytest.raises(Damaged, match=r"shop/order:1\.0\.0 is damaged: register it again"):
        await registry.look_up(LATEST)
    assert not await registry.has_text(text_of("1.0.0"))
    assert (await register(registry, text_of("1.0.0")))[1] is False
    assert (await registry.look_up(LATEST)).document == text_of("1.0.0")


async def test_a_folder_is_registered_once(tmp_path: Path) -> None:
    """By whichever replica; what is there is not compiled, and so not fetched, again."""
    store = open_store(f"file://{tmp_path}/blobs")
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "order.yaml").write_text(text_of("1.0.0"))
    (folder / "broken.yaml").write_text("do: [")
    compilations: list[str] = []

    async def compile_document(text: str) -> Plan:
        compilations.append(text)
        return compiled(text) if text.startswith("document") else await failing()

    async def failing() -> Plan:
        raise UnknownWorkflow("shop", "broken", "1.0.0")

    for _ in range(2):
        await SharedRegistry(store).load(folder, compile_document)
    assert compilations.count(text_of("1.0.0")) == 1
    assert (await SharedRegistry(store).look_up(LATEST)).document == text_of("1.0.0")


@pytest.mark.parametrize("name", ["..", "../versions", "a/b", "", ".hidden", "order/", "öre"])
async def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    registry = SharedRegistry(open_store(f"file://{tmp_path}"))
    await register(registry, text_of("1.0.0"))
    for ref in (
        DefinitionRef("shop", name, ""),
        DefinitionRef(name, "order", ""),
        DefinitionRef("shop", name, "1.0.0"),
    ):
        with pytest.raises(UnknownWorkflow):
            await registry.look_up(ref)
    with pytest.raises(UnknownWorkflow):
        await registry.look_up(DefinitionRef("shop", "order", f"../order/1.0.0{name}"))
    if name:
        assert await registry.page(name, "order", None, None, 9) == []
        assert await registry.page("shop", name, None, None, 9) == []


async def test_texts_that_are_kept_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PLANS_CACHED_MAX", 2)
    registry = SharedRegistry(open_store(f"file://{tmp_path}"))
    for number in range(4):
        await register(registry, text_of(f"1.{number}.0"))
    assert len(registry._known) == 2
