"""The notebooks as static HTML pages, for readers who will never start a kernel; no network is asked."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from lib.runs import atomic_write

# nbconvert's own page without what it would load from the network: require.js, MathJax and Mermaid.
_TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock html_head_js -%}
{%- block html_head_js_mathjax -%}{%- endblock html_head_js_mathjax -%}
{%- block html_head_js_mermaidjs -%}{%- endblock html_head_js_mermaidjs -%}"""
_LINK = re.compile(r"(?<!!)(\[[^\]]*\])\((?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?\)")
_PICTURE = re.compile(r"(!\[[^\]]*\])\((?!\w+:|/)([^)\s]+)\)")
_WIDGET = "application/vnd.jupyter.widget-view+json"
FRONT = "00_overview"


def write_pages(sources: Sequence[Path], executed: Sequence[Path], target: Path) -> list[Path]:
    """One page a notebook and index.html, the overview; returns the pages.

    sources   the notebooks in notebooks/
    executed  their executed copies, by the same names; those that are not there are ignored
    target    a folder for the pages; pictures are inside them, files that they link to beside them

    A notebook without an executed copy is shown as it is, and says so.
    """
    stems = [path.stem for path in sources]
    copies = {path.name: path for path in executed if path.is_file()}
    pages = []
    for source in sources:
        notebook = nbformat.read(copies.get(source.name, source), as_version=4)
        notebook.metadata.pop("widgets", None)
        for cell in notebook.cells:
            _prepare(cell, source, stems, target)
        said = "" if source.name in copies else "\n\n*Not executed here: text and code only.*"
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(_bar(stems, source.stem) + said))
        exporter = HTMLExporter(raw_template=_TEMPLATE, embed_images=True)
        # The path is where pictures are looked for, and nbconvert takes none from above it.
        place = {"metadata": {"path": str(source.parent.parent), "name": source.stem}}
        page, _ = exporter.from_notebook_node(notebook, resources=place)
        pages.append(atomic_write(target / f"{source.stem}.html", page))
        if source.stem == FRONT:
            pages.append(atomic_write(target / "index.html", page))
    return pages


def _bar(stems, current):
    return " &middot; ".join(f"**{s}**" if s == current else f"[{s}]({s}.html)" for s in stems)


def _prepare(cell, source, stems, target):
    """Links of text and of HTML outputs lead to pages, a widget says where it lives."""
    if cell.cell_type == "markdown":
        root = source.parent.parent
        cell.source = _PICTURE.sub(
            lambda found: f"{found[1]}({os.path.relpath(source.parent / found[2], root)})", cell.source
        )
        cell.source = _LINK.sub(lambda found: _followed(found, source, stems, target), cell.source)
        return
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if _WIDGET in data:
            output["data"] = {"text/html": "<em>A widget: open the notebook in JupyterLab to use it.</em>"}
        elif "text/html" in data:
            for stem in stems:
                data["text/html"] = data["text/html"].replace(f'href="{stem}.ipynb"', f'href="{stem}.html"')


def _followed(found, source, stems, target):
    """A relative link as the page needs it; the file it names comes along."""
    text, path, anchor = found[1], Path(found[2]), found[3] or ""
    if path.suffix == ".ipynb" and path.stem in stems:
        return f"{text}({path.stem}.html{anchor})"
    file = (source.parent / path).resolve()
    if not file.is_file():
        return found[0]
    folder = target / "linked" / file.parent.name  # nbconvert strips a leading files/
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / file.name)
    return f"{text}(linked/{file.parent.name}/{file.name}{anchor})"
