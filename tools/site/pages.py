"""Hooks of mkdocs: pages from outside of docs/, links that fit the site, equations as MathML."""

import html
import pathlib
import posixpath
import re

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
# {file outside of docs/: its page}
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "configs/README.md": "recipes.md",
    **{
        f"examples/{path.name}": f"examples/{path.stem}.md"
        for path in sorted((ROOT / "examples").glob("*.py"))
    },
}
SOURCES = {page: source for source, page in PAGES.items()}

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files, config):
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(
            File.generated(config, page, content=cells(text) if source.endswith(".py") else text)
        )
    return files


def on_page_markdown(markdown, page, config, files):
    """Links are written for the repository. Those to source files become plain text."""
    here = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))

    def on_site(link):
        image, text, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        uri = PAGES.get(path) or PAGES.get(f"{path}/README.md")
        if uri is None and path.startswith("docs/"):
            uri = path.removeprefix("docs/")
        if uri is None:
            return text if (ROOT / path).exists() else link[0]
        return f"{image}[{text}]({posixpath.relpath(uri, posixpath.dirname(here))}{anchor or ''})"

    return _LINK.sub(on_site, markdown)


def on_page_content(html_of_page, page, config, files):
    """Browsers show MathML by themselves, so that no script is loaded."""

    def as_mathml(equation):
        display = "block" if equation[1] == "div" else "inline"
        return convert(html.unescape(equation[2]), display=display)

    return _MATH.sub(as_mathml, html_of_page)


def cells(script: str) -> str:
    """Markdown of a script in percent format."""
    parts = []
    for cell in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, _, text = cell.partition("\n")
        if kind.strip() == "[markdown]":
            parts.append(re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip())
        else:
            parts.append(f"```python\n{text.strip()}\n```")
    return "\n\n".join(parts) + "\n"
