"""Static pages: links and pictures work without a kernel, a network or the repository beside them."""

import re

import nbformat
import pytest

from lib.pages import write_pages

PIXEL = (  # a PNG of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TEXT = """# Front
[next](01_next.ipynb#part), [the table](../results/table.csv),
[elsewhere](https://example.org/a), [gone](no.txt)

![drawn](../figures/drawn.png)"""


@pytest.fixture
def site(tmp_path):
    """Pages of two notebooks, of which only the first was executed."""
    import base64

    for name in ("notebooks", "results", "figures", "executed"):
        (tmp_path / name).mkdir()
    (tmp_path / "results" / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "figures" / "drawn.png").write_bytes(base64.b64decode(PIXEL))
    new = nbformat.v4
    source = new.new_notebook(cells=[new.new_markdown_cell(TEXT), new.new_code_cell("show()")])
    nbformat.write(source, tmp_path / "notebooks" / "00_overview.ipynb")
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "dead"}, "text/plain": "VBox()"}
    table = {"text/html": '<a href="01_next.ipynb">01_next</a>', "text/plain": "table"}
    source.cells[1].outputs = [
        new.new_output("display_data", data) for data in (view, table, {"image/png": PIXEL})
    ]
    source.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(source, tmp_path / "executed" / "00_overview.ipynb")
    plain = new.new_notebook(cells=[new.new_markdown_cell("# Next")])
    nbformat.write(plain, tmp_path / "notebooks" / "01_next.ipynb")
    sources = sorted((tmp_path / "notebooks").glob("*.ipynb"))
    pages = write_pages(sources, [tmp_path / "executed" / "00_overview.ipynb"], tmp_path / "html")
    assert [p.name for p in pages] == ["00_overview.html", "index.html", "01_next.html"]
    return tmp_path / "html"


def test_links_lead_to_pages_and_to_files_that_came_along(site):
    page = (site / "index.html").read_text()
    assert 'href="01_next.html#part"' in page and 'href="https://example.org/a"' in page
    assert ".ipynb" not in re.sub(r"<title>.*?</title>", "", page)
    links = {a.partition("#")[0] for a in re.findall(r'<a [^>]*href="([^":]+)"', page)}
    local = links - {"", "no.txt"}
    assert "linked/results/table.csv" in local
    assert all((site / name).is_file() for name in local), local


def test_pictures_are_inside_and_widgets_say_where_they_live(site):
    page = (site / "00_overview.html").read_text()
    pictures = re.findall(r'<img[^>]*src="([^"]{0,30})', page)
    assert len(pictures) == 2 and all(p.startswith("data:image/png;base64") for p in pictures)
    assert "open the notebook in JupyterLab" in page and "VBox()" not in page


def test_nothing_is_loaded_from_the_network(site):
    for page in site.glob("*.html"):
        assert not re.findall(r'<(?:script|link)[^>]*(?:src|href)="(?:https?:)?//[^"]*', page.read_text())
        assert "cdnjs" not in page.read_text() and "unpkg" not in page.read_text()


def test_a_notebook_that_was_not_executed_says_so(site):
    assert "Not executed here" in (site / "01_next.html").read_text()
    assert "Not executed here" not in (site / "00_overview.html").read_text()
