"""Hooks of mkdocs: what the pages of docs/ need beyond it to be a site.

The pages link to files beside docs/ (examples, deploy, protos) as GitHub shows them. Here those files come along, below
the same names, so that every link is one that mkdocs checks. README.md is the first page, CHANGELOG.md the last one.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("examples", "deploy", "protos", "_kustomize")
"""What pages link to beside docs/."""
PAGES = {"index.md": "README.md", "CHANGELOG.md": "CHANGELOG.md"}
"""Pages that lie beside docs/, by their names in the site."""
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]*)(#[^)\s]*)?(\))")


def on_config(config: Any) -> Any:
    """Adds the pages that the navigation does not name to its last section of how-to pages."""
    named = re.findall(r"[\w-]+\.md", str(config["nav"]))
    how_to = next(each["How to"] for each in config["nav"] if "How to" in each)
    how_to += [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in named]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the files that lie beside docs/."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = str(path.relative_to(ROOT))
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001 - a hook
    """Makes links lead to where the files are in the site."""
    name = page.file.src_uri
    source = PAGES.get(name) or (name if name.split("/")[0] in FOLDERS else f"docs/{name}")

    def moved(link: re.Match[str]) -> str:
        before, target, anchor, after = link.groups()
        if not target:
            return link[0]
        place = (ROOT / source).parent.joinpath(target).resolve()
        if not place.is_relative_to(ROOT):
            return link[0]
        to = _in_site(str(place.relative_to(ROOT)), place.is_dir())
        depth = name.count("/")
        return f"{before}{'../' * depth}{to}{anchor or ''}{after}"

    return _outside_code(markdown, moved)


def _in_site(path: str, is_folder: bool) -> str:
    """Where a file of the repository is in the site, from its top."""
    if is_folder:
        # A folder is no page; the first of its files stands for it.
        path = str(next(each for each in sorted((ROOT / path).rglob("*")) if each.is_file()).relative_to(ROOT))
    for name, source in PAGES.items():
        if path == source:
            return name
    return path.removeprefix("docs/")


def _outside_code(markdown: str, moved: Any) -> str:
    """Replaces links, but those within code."""
    # Fences only: a link's text may hold code, [`listen`](tasks.md), and no code within a line looks like a link.
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else _LINK.sub(moved, part) for part in parts)
