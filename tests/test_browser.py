"""90_explore in a real browser: JupyterLab, and a headless Chromium driven by Playwright.

Skipped where no Chromium is found: `apt-get install chromium`, or name one in MDB_CHROMIUM. Under
MDB_SCREENSHOTS=figures the same is done with the embeddings of the mini profile, and pictures of it are kept.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from lib.config import ROOT, load_profile
from lib.runs import runs_root

CHROMIUM = os.environ.get("MDB_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SCREENSHOTS = os.environ.get("MDB_SCREENSHOTS")
MINUTE = 60_000  # of Playwright's milliseconds; a busy machine takes several for what is quick otherwise

#: Every cell in the page, whether in view or not, and no news.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium, or set MDB_CHROMIUM"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of 90_explore, with the smoke profile's parameters, in a JupyterLab of its own."""
    place = tmp_path_factory.mktemp("lab")
    profile = load_profile("mini" if SCREENSHOTS else "smoke")
    values = profile["common"] | profile["90_explore"]
    shown = ["chest", "prostate", "histology"] if SCREENSHOTS else ["prostate"]
    values |= {"output": str(place / "out"), "modalities": shown, "demo_steps": 100_000}
    notebook = load_notebook_node(str(ROOT / "notebooks" / "90_explore.ipynb"))
    (place / "notebooks").mkdir()
    nbformat.write(parameterize_notebook(notebook, values), place / "notebooks" / "90_explore.ipynb")
    for plugin, chosen in SETTINGS.items():
        file = place / "settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(chosen))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = {name: str(place / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    runs = runs_root() if SCREENSHOTS else place / "runs"
    paths = {"MDB_RUNS": str(runs), "JUPYTERLAB_SETTINGS_DIR": str(place / "settings")}
    paths |= {"JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root"]
    command += [f"--ServerApp.root_dir={place}", "--IdentityProvider.token=test"]
    command += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (place / "lab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | home | paths)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token=test", server, place / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/90_explore.ipynb?token=test"
    finally:
        server.terminate()
        server.wait(60)


def _wait_for(address, server, log, seconds=240):
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def page(lab):
    """The notebook with all cells run; `page.said` are the console's errors since then."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1250})
        page.set_default_timeout(2 * MINUTE)
        page.said = []
        page.on("console", lambda message: message.type == "error" and page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(lab)
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        page.get_by_text("| Idle").wait_for()  # cells that are run before there is a kernel never start
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        failed = page.locator(".jp-OutputArea-output", has_text="Traceback (most recent call last)")
        page.locator(".mdb-demo").nth(4).or_(failed).first.wait_for(state="attached", timeout=10 * MINUTE)
        assert not failed.count(), failed.first.inner_text()
        yield page
        browser.close()


@pytest.fixture
def demo(page):
    """Demo by its number, in view and at rest."""

    def find(number):
        box = page.locator(".mdb-demo").nth(number)
        box.scroll_into_view_if_needed()
        box.locator(".mdb-ready").wait_for(state="attached", timeout=10 * MINUTE)
        return box

    return find


def source(box, number=-1):
    """The address of a demo's picture, which changes with the picture."""
    images = box.locator("img")
    return images.nth(number if number >= 0 else images.count() - 1).get_attribute("src")


def changes(page, box, before, number=-1):
    """Waits until the picture is another one."""
    for _ in range(600):
        if source(box, number) != before:
            return
        page.wait_for_timeout(500)
    pytest.fail(f"the picture did not change: {box.inner_text()}")


def keep(box, name):
    if SCREENSHOTS:
        box.screenshot(path=str(Path(SCREENSHOTS) / f"90_explore-screen-{name}.png"))


def test_the_slider_moves_by_keyboard_and_the_picture_follows(page, demo):
    box = demo(0)
    before = source(box)
    handle = box.locator(".noUi-handle").first
    weight = handle.get_attribute("aria-valuenow")
    handle.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    changes(page, box, before)
    now = float(handle.get_attribute("aria-valuenow"))
    assert now > float(weight)
    box.get_by_text(f":{now:g};").wait_for(timeout=5 * MINUTE)  # the last place that it was moved to
    assert "U-Net passes" in demo(0).inner_text()
    chosen = [box.locator("select").nth(i).input_value() for i in range(3)]
    assert all(chosen) and chosen[1] != chosen[2], chosen
    keep(box, "interpolation")


def test_a_finding_is_added_by_its_weight(page, demo):
    box = demo(1)
    before = source(box)
    handle = box.locator(".noUi-handle").first
    weight = float(handle.get_attribute("aria-valuenow"))
    handle.focus()
    page.keyboard.press("ArrowRight" if weight < 1 else "ArrowLeft")
    changes(page, box, before)
    assert float(handle.get_attribute("aria-valuenow")) != weight
    assert not demo(1).locator(".mdb-error").count()
    keep(box, "composition")


def test_a_click_in_the_picture_moves_the_mask(page, demo):
    box = demo(2)
    before = source(box)
    picture = box.locator("img").first
    size = picture.bounding_box()
    picture.click(position={"x": size["width"] * 0.32, "y": size["height"] * 0.45})
    changes(page, box, before)
    shown = demo(2).locator(".widget-readout").all_inner_texts()
    assert {"20", "28"} <= set(shown), shown  # in a lung
    keep(box, "inpainting")


def test_a_bad_file_is_answered_in_the_widget(page, demo, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no embedding at all")
    box = demo(3)
    before = source(box)
    with page.expect_file_chooser() as chooser:
        box.locator(".widget-upload").click()
    chooser.value.set_files(str(bad))
    error = box.get_by_role("alert")
    error.wait_for(state="attached")
    assert "bad.safetensors: neither a .safetensors nor a .pt file" in error.inner_text()
    assert "Traceback" not in box.inner_text() and source(box) == before
    keep(box, "prompt")


def test_training_is_stopped_and_what_was_learned_is_kept(demo):
    box = demo(4)
    box.get_by_role("button", name="Train").click()
    trains = box.locator(".mdb-busy", has_text=re.compile(r"[3-9]\d of \d+ updates"))
    error = box.locator(".mdb-error")
    trains.or_(error).first.wait_for(state="attached", timeout=10 * MINUTE)
    assert not error.count(), error.inner_text()
    box.get_by_role("button", name="Stop and keep").click()
    box.locator(".mdb-ready", has_text="kept after").wait_for(state="attached", timeout=10 * MINUTE)
    with box.page.expect_download() as download:
        box.get_by_text("Download the embedding").click()
    assert download.value.suggested_filename == "mine.safetensors"
    keep(box, "training")


def test_the_console_has_no_message_of_ours(page):
    """Runs last. What JupyterLab itself misses (a favicon, its news) is not ours."""
    ours = [text for text in page.said if any(name in text for name in ("widget", "ipyevents", "mdb-"))]
    assert not ours, page.said
