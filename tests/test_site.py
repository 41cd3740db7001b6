"""The documentation as a site: every link leads somewhere, and no page needs a network."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text):
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "`code`", text)


def anchors(path):
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        plain = re.sub(r"[^\w\s-]", "", plain).strip()
        found.add(re.sub(r"[-\s]", "-", plain))
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\x00-\x7f]", "", plain)).strip("-"))
    return found


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(without_code(page.read_text())):
        if re.match(r"https?:|mailto:", link):
            continue
        file, _, anchor = unquote(link).partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name}: {link}"
        if page.parent == ROOT / "docs":
            assert ROOT / "docs" in target.parents, f"{page.name}: {link} leads out of the site"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", TOP[1:], ids=lambda page: page.name)
def test_pages_that_the_site_includes_have_no_relative_links(page):
    for link in LINK.findall(without_code(page.read_text())):
        assert re.match(r"https?:|mailto:|#", link), f"{page.name}: {link}"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    assert sorted(re.findall(r"(\w+\.md)", navigation)) == [page.name for page in PAGES]


def test_no_line_of_the_readme_is_longer_than_100_characters():
    text = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.M)
    for line in text.splitlines():
        if not line.startswith(("|", "    ", "![")):
            assert len(line) <= 100, line


# Words that the project once used in a sense of its own.
DIALECT = (
    r"\bof one's own\b", r"\bis told\b", r"\bof those\b", r"\ba seventh shorter\b",
    r"\bimages? a step\b", r"\bimages? a second\b", r"\bwhoever\b", r"\bsays of\b",
    r"\btimes a step\b",
)  # fmt: skip


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=lambda page: page.name)
def test_pages_are_in_plain_english(page):
    for pattern in DIALECT:
        found = re.search(pattern, without_code(page.read_text()), re.IGNORECASE)
        assert not found, f"{page.name}: {found[0]}"


@pytest.mark.parametrize("folder", ["ssljax", "configs", "benchmarks"])
def test_docstrings_comments_and_messages_are_in_plain_english(folder):
    for file in (ROOT / folder).rglob("*.py"):
        for pattern in DIALECT:
            found = re.search(pattern, file.read_text(), re.IGNORECASE)
            assert not found, f"{file.relative_to(ROOT)}: {found[0]}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. `make docs` installs what builds it."""
    pytest.importorskip("mkdocs", reason="make docs installs it")
    pytest.importorskip("mkdocstrings", reason="make docs installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_site_is_built_and_needs_no_network(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text()
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", text):
            for address in re.findall(r"(?:src|href)=\"([^\"]*)\"", tag):
                assert not re.match(r"(https?:)?//", address), f"{page.name}: {tag}"
        assert "fonts.g" not in text
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text()), style.name


@pytest.mark.slow
def test_the_site_has_the_docstrings(site):
    text = (site / "api.html").read_text()
    for name in ("ssljax.library.fit", "ssljax.methods.method.Method", "ssljax.methods.fixmatch"):
        assert f'id="{name}' in text, name
