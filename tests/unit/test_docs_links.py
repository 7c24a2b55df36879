"""Links of the documents lead somewhere, and what they name in this repository is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:charts|crds|docs|fakes|provisioner|tests|\.ci)/[\w./-]*[\w/])`")


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_what_is_there(document: Path) -> None:
    for link in _LINK.findall(_FENCED.sub("", document.read_text())):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_that_are_named_exist(document: Path) -> None:
    for path in _PATH.findall(document.read_text()):
        assert (ROOT / path).exists(), path


def test_readme_leads_to_every_document() -> None:
    linked = set(_LINK.findall((ROOT / "README.md").read_text()))

    assert {f"docs/{path.name}" for path in DOCUMENTS[1:]} - {link.partition("#")[0] for link in linked} == set()
