"""What the documentation site has beside docs/: the pages at the top of the repository, with their links turned."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the top folder."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        text = re.sub(r"(?<=\]\()[^)#:]+(?=[)#])", _turn, (root / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Turn the links of a page in docs/ that lead to a page of the top folder, which on the site is one folder nearer."""
    return re.sub(r"(?<=\]\()\.\./((?:\.\./)*)([A-Z]+\.md)(?=[)#])", lambda link: link[1] + PAGES.get(link[2], link[2]), markdown)


def _turn(link: re.Match[str]) -> str:
    """Return where a link of a top page leads on the site."""
    target = PAGES.get(link[0], link[0].removeprefix("docs/"))
    return f"{target}README.md" if target.endswith("/") else target
