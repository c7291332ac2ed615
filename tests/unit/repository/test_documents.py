"""The documents as a site: it builds, and a reader's browser asks no other host for anything."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

#: Attributes by which a page makes the browser load something.
LOADING = ("src", "srcset", "poster", "data", "background")


class Loads(HTMLParser):
    """What a browser fetches for one page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attrs:
            if not value:
                continue
            # Of links, the ones to click on are no loads. <link> is one, whatever its rel.
            if name in LOADING or (name == "href" and tag in ("link", "use", "image")):
                self.found.append(value)
            if name == "style":
                self.found += urls_of_style(value)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found += urls_of_style(data)


def urls_of_style(text: str) -> list[str]:
    """What a style sheet loads."""
    plain = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.findall(r"url\(\s*['\"]?([^'\")]+)", plain) + re.findall(
        r"@import\s+['\"]([^'\"]+)", plain
    )


def elsewhere(url: str) -> bool:
    """Whether a URL leads to a host, this site's own or another."""
    return re.match(r"(?!data:)([a-z][a-z0-9+.-]*:|//)", url.strip(), re.IGNORECASE) is not None


def loads_of(page: Path) -> list[str]:
    """What one page of the site makes a browser fetch."""
    parser = Loads()
    parser.feed(page.read_text())
    return parser.found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents, built as scripts/check builds them."""
    folder = tmp_path_factory.mktemp("site")
    command = [Path(sys.executable).with_name("mkdocs"), "build", "--quiet", "--strict"]
    done = subprocess.run(
        [*command, "--site-dir", folder], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))

    assert len(pages) > 15
    loaded = {page: loads_of(page) for page in pages}
    assert all(len(found) >= 4 for found in loaded.values())
    assert {(p.name, u) for p, found in loaded.items() for u in found if elsewhere(u)} == set()


def test_no_style_sheet_asks_another_host_for_anything(site: Path) -> None:
    sheets = sorted(site.rglob("*.css"))

    assert len(sheets) >= 2
    loaded = {(s.name, u) for s in sheets for u in urls_of_style(s.read_text())}
    assert {(name, u) for name, u in loaded if elsewhere(u)} == set()


def test_no_picture_asks_another_host_for_anything(site: Path) -> None:
    pictures = [p for p in site.rglob("*.svg") if "assets" not in p.relative_to(site).parts]

    assert pictures
    loaded = {(p.name, u) for p in pictures for u in urls_of_style(p.read_text()) + loads_of(p)}
    assert {(name, u) for name, u in loaded if elsewhere(u)} == set()


def test_every_page_brings_what_draws_diagrams_itself(site: Path) -> None:
    # The theme's own script would fetch it from another host where a page does not have it.
    for page in site.rglob("*.html"):
        assert any(re.fullmatch(r"(.*/)?mermaid\.min\.js", u) for u in loads_of(page)), page


def test_commands_and_python_pages_are_made_from_the_code(site: Path) -> None:
    commands = (site / "reference" / "cli.html").read_text()
    python = (site / "reference" / "python.html").read_text()

    assert all(flag in commands for flag in ("--parallelism", "--optimizer-state", "--follow"))
    assert all(name in python for name in ("state_dict", "configure_optimizers"))


def test_no_document_installs_kubeml_from_the_index() -> None:
    # The name there is the original's.
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]

    named = re.compile(r"pip install[^\n`]*?['\" ](kubeml(?:\[[^\]]*\])?)['\"\s`]")
    assert {d.name: found for d in documents if (found := named.findall(d.read_text()))} == {}


def test_links_of_the_readme_lead_somewhere() -> None:
    # mkdocs checks those within docs/.
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text())

    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_documents_that_the_code_names_are_there() -> None:
    folders = ("kubeml", "brokers", "tasks", "tests", "k8s")
    sources = [file for folder in folders for file in (ROOT / folder).rglob("*")]
    sources = [ROOT / "docker-compose.yml", *(f for f in sources if f.suffix in {".py", ".yaml"})]
    named = {
        (file.name, path)
        for file in sources
        for path in re.findall(r"\bdocs/[\w/.-]+\.md\b", file.read_text())
    }

    assert named
    assert {(name, path) for name, path in named if not (ROOT / path).is_file()} == set()
