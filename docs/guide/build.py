"""Builds the guide and the other documents as a book with mdBook, and checks each link in it.

usage: build.py FOLDER
Needs `mdbook`, 0.5 or later, in the path, and a checkout. The chapters link to source files, which stand outside of
docs/. So the book is made of a copy of the whole tree: mdBook renders the documents and copies the other files.
The order is that of the tables in docs/guide/README.md and README.md.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

GUIDE = Path(__file__).resolve().parent
ROOT = GUIDE.parents[1]
OTHERS = ["examples/README.md", "exercises/README.md", "tests/README.md", "fuzz/README.md", "SECURITY.md",
          "CHANGELOG.md"]


def rows(document):
    """The title and the path of each document that begins a row of a table."""
    for line in (ROOT / document).read_text().splitlines():
        if match := re.match(r"\| \[([^]]+)]\(([^)#]+\.md)\) \|", line):
            path = (ROOT / document).parent / match[2]
            yield match[1], path.resolve().relative_to(ROOT).as_posix()


def summary():
    """The contents of the book: the guide, and then every other document."""
    chapters = list(rows("docs/guide/README.md"))
    lines = ["# Summary", "", "[The guide](docs/guide/README.md)", ""]
    lines += [f"- [{title}]({path})" for title, path in chapters]
    lines += ["", "# The project", "", "- [README](README.md)"]
    seen = {"docs/guide/README.md", *(path for _, path in chapters)}
    documents = [path for _, path in rows("README.md")] + OTHERS
    for path in dict.fromkeys(documents):
        if path not in seen:
            title = (ROOT / path).read_text().splitlines()[0].removeprefix("# ")
            lines.append(f"- [{title}]({path})")
    return "\n".join(lines) + "\n"


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.anchors.add(value)
            elif name in ("href", "src", "srcset") and value:
                self.links.append(value)


def broken_links(book):
    """Each link of the book that leads nowhere, and the number of all links within the book."""
    pages = {path: Page(path) for path in book.rglob("*.html") if path.name not in ("404.html", "print.html")}
    broken, count = [], 0
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            count += 1
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if target.is_dir() and (target / "index.html").exists():
                target /= "index.html"
            known = pages.get(target)
            if not target.exists() or known and url.fragment and unquote(url.fragment) not in known.anchors:
                broken.append(f"{path.relative_to(book)}: {link}")
    return broken, count


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1].split("\n")[0])
    book = Path(sys.argv[1]).resolve()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in filter(None, files.stdout.split("\0")):
            target = folder / "src" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
            if target.suffix == ".md":
                # mdBook makes index.html of README.md, and leaves the links to it as they are.
                target.write_text(re.sub(r"(]\([^)]*)README\.md", r"\1index.md", target.read_text()))
        (folder / "src" / "SUMMARY.md").write_text(summary())
        shutil.copy(GUIDE / "book.toml", folder)
        subprocess.run(["mdbook", "build", "--dest-dir", book, folder], check=True)
    broken, count = broken_links(book)
    print(f"{book}: {count} links, {len(broken)} of them broken")
    sys.exit("\n".join(broken) or 0)


main()
