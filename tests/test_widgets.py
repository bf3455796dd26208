"""The demos without a browser: what a control changes, what an error says, what is kept."""

import io
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

from lib import widget_parts, widgets
from lib.embedding import Embedding
from lib.errors import MemoryExhausted, UserError
from lib.inversion import InversionSettings
from lib.phantoms import MODALITIES, draw
from lib.sampling import generate

SECONDS = 240  # for what takes one or two: a busy machine
QUICK = {"steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def library(base):
    """Three chest classes and two of the prostate, at random."""
    generator = torch.Generator().manual_seed(0)
    names = [("chest", c) for c in ("healthy", "cardiomegaly", "effusion")]
    names += [("prostate", c) for c in MODALITIES["prostate"]]
    return {
        (modality, label): Embedding(
            torch.randn(2, base.token_width, generator=generator), f"<{modality}-{label}>"
        )
        for modality, label in names
    }


def pixels(panel):
    assert panel.wait(SECONDS)
    return np.asarray(Image.open(io.BytesIO(panel.picture.value)))


def state(panel):
    assert panel.wait(SECONDS)
    return panel.state.value


def mean_brightness(_modality, images):
    return {"brightness": images.mean((1, 2, 3))}


def test_the_picture_is_what_generate_draws_and_follows_the_weight(base, library):
    demo = widgets.Interpolate(base, library, measure=mean_brightness, **QUICK)
    first = pixels(demo)
    weights = {library["chest", "healthy"]: 0.5, library["chest", "cardiomegaly"]: 0.5}
    expected = generate(base, weights, 1, guidance=3.0, sampler="euler_a", **QUICK)[0].numpy()
    expected = np.asarray(Image.open(io.BytesIO(widget_parts.png(expected))))
    assert np.abs(first.astype(int) - expected).max() <= 1
    brightness = first.mean() / 255
    told = float(demo.text.value.split("brightness ")[1].split()[0])
    assert told == pytest.approx(brightness, abs=0.002)  # half a level of 255
    demo.weight.value = 1.0
    assert not np.array_equal(pixels(demo), first)
    assert "cardiomegaly :1" in demo.text.value and "healthy" not in demo.text.value
    demo.weight.value = 0.5
    assert np.array_equal(pixels(demo), first)  # the same noise
    assert "mdb-ready" in state(demo) and 'download="interpolation.png"' in demo.links.value


def test_an_error_is_told_in_the_widget_and_the_picture_stays(base, library):
    demo = widgets.Interpolate(base, library, **QUICK)
    before = pixels(demo)
    demo.second.value = demo.first.value
    assert "mdb-error" in state(demo) and "choose two classes" in demo.state.value
    assert "Traceback" not in demo.state.value
    assert np.array_equal(pixels(demo), before)
    demo.modality.value = "prostate"
    assert "mdb-ready" in state(demo) and demo.second.value == "tumour"


def test_what_is_chosen_is_what_a_browser_shows(base, library):
    """A browser is told a place in the list, not a name."""
    demo = widgets.Interpolate(base, library, **QUICK)
    for modality in ("prostate", "chest"):
        demo.modality.value = modality
        for widget in (demo.first, demo.second):
            assert widget.get_state()["index"] == demo.labels().index(widget.value)


def test_composition_takes_a_weight_a_class_and_refuses_none(base, library):
    demo = widgets.Compose(base, library, **QUICK)
    before = pixels(demo)
    assert demo.weights() == {"healthy": 0.0, "cardiomegaly": 0.5, "effusion": 0.5}
    demo.own.children[0].value = 1.0
    assert not np.array_equal(pixels(demo), before) and "healthy :1 AND" in demo.text.value
    for slider in demo.own.children:
        slider.value = 0.0
    assert "every weight is 0" in state(demo)


def test_inpainting_changes_nothing_outside_and_follows_a_click(base, library):
    pictures = {m: draw(m, MODALITIES[m][0], 2)[0] for m in ("prostate", "chest")}
    demo = widgets.Inpaint(base, library, pictures, **QUICK)
    sheet = pixels(demo)
    assert sheet.shape[0] > sheet.shape[1]  # the prostate's channels below one another
    assert "outside the mask and its seam: 0." in demo.text.value
    before = demo.before.value
    event = {"relativeX": 30, "boundingRectWidth": 240, "relativeY": 180, "boundingRectHeight": 240}
    demo.click._dom_handlers(event)
    assert (demo.column.value, demo.row.value) == (8, 48) and demo.mask[48, 8] and not demo.mask[32, 32]
    assert demo.before.value != before and not np.array_equal(pixels(demo), sheet)
    demo.modality.value = "chest"
    sheet = pixels(demo)
    assert sheet.shape[0] < sheet.shape[1] and demo.disease.value == "effusion"
    demo.emphasis.value = 1.0  # the embedding alone
    assert not np.array_equal(pixels(demo), sheet)


def test_prompt_loads_an_embedding_and_says_what_is_wrong_with_a_file(base, library, tmp_path):
    demo = widgets.Prompt(base, "plain grey", library, n=1, **QUICK)
    before = pixels(demo)
    path = library["chest", "effusion"].save(tmp_path / "mine.pt", "a1111")
    demo.file.value = str(path)
    demo.load.click()
    assert "&lt;mine&gt; loaded, 2 vectors" in demo.told.value
    demo.caption.value = "<mine>"
    demo.go.click()
    assert not np.array_equal(pixels(demo), before)

    bad = {"name": "bad.pt", "content": b"no embedding", "type": "", "size": 12}
    demo.upload.value = (bad | {"last_modified": datetime.now(UTC)},)
    assert demo.told.value.count("bad.pt: neither a .safetensors nor a .pt file") == 1
    assert tempfile.gettempdir() not in demo.told.value and "mdb-ready" in state(demo)
    wide = Embedding(torch.zeros(1, 768), "<wide>").save(tmp_path / "wide.safetensors")
    demo.file.value = str(wide)
    demo.load.click()
    assert "768 wide" in demo.told.value
    upload(demo, wide)
    assert "wide.safetensors: " in demo.told.value and "768 wide" in demo.told.value
    assert tempfile.gettempdir() not in demo.told.value


def upload(demo, path):
    item = {"name": path.name, "content": path.read_bytes(), "type": "", "size": path.stat().st_size}
    demo.upload.value = (item | {"last_modified": datetime(2026, 1, 1, tzinfo=UTC)},)


def test_a_file_is_taken_however_busy_the_demo_is_and_whenever_it_comes_again(base, library, tmp_path):
    """What waits to be drawn gives way to what is newer; a file must not, nor be refused the second time."""
    demo = widgets.Prompt(base, "plain grey", None, n=1, **QUICK)
    path = library["chest", "effusion"].save(tmp_path / "mine.safetensors")
    with widget_parts.model_lock():  # as while another demo draws
        demo.refresh()
        upload(demo, path)
        demo.caption.value = "<chest-effusion>"
        demo.refresh()
        assert "mdb-busy" in demo.state.value and "loaded, 2 vectors" in demo.told.value
    assert "mdb-ready" in state(demo) and "chest-effusion" in demo.text.value
    demo.add(replace(library["chest", "healthy"], token="<chest-effusion>"))
    upload(demo, path)
    assert demo._loaded["<chest-effusion>"].digest == library["chest", "effusion"].digest
    assert demo.upload.value == ()


def test_a_token_that_nothing_was_loaded_for_is_no_caption(base, library):
    demo = widgets.Prompt(base, "<chest-healthy> , <nobody>", library, n=1, **QUICK)
    assert "mdb-error" in state(demo) and "&lt;nobody&gt;: no embedding of that name" in demo.state.value


def test_the_words_under_a_picture_are_those_it_was_drawn_for(base, library):
    demo = widgets.Prompt(base, "plain grey", library, n=1, **QUICK)
    assert demo.wait(SECONDS)
    with widget_parts.model_lock():
        demo.refresh()
        demo.caption.value = "plain red"
    assert "mdb-ready" in state(demo) and demo.text.value == "plain grey"


def test_a_file_is_found_from_the_repository_wherever_the_kernel_is(base, library, tmp_path, monkeypatch):
    (tmp_path / "root" / "runs").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    library["chest", "effusion"].save(tmp_path / "root" / "runs" / "mine.safetensors")
    monkeypatch.setattr("lib.config.ROOT", tmp_path / "root")
    monkeypatch.chdir(tmp_path / "notebooks")
    demo = widgets.Prompt(base, "plain grey", library, n=1, **QUICK)
    assert demo.wait(SECONDS)
    demo.file.value = "runs/mine.safetensors"
    demo.load.click()
    assert "loaded, 2 vectors" in demo.told.value


def test_a_guidance_that_was_asked_for_is_the_sliders(base):
    assert widget_parts.sampling_controls(guidance=10.0)["guidance"].value == 10.0


@pytest.fixture
def training(base, runs_folder):
    """A training demo of four phantoms that keeps what it learns in a list."""
    kept = []
    settings = InversionSettings(token="<mine>", vectors=2, steps=3, batch_size=2, record_every=1)
    demo = widgets.Train(base, "phantom:chest/healthy", settings, preview_steps=2, keep=kept.append)
    demo.n.value = 4
    return demo, kept


def test_training_to_the_end_keeps_a_file_with_its_provenance(training, runs_folder):
    demo, kept = training
    demo.start.click()
    file = runs_folder / "explore" / "mine.safetensors"
    assert f"kept after 3 updates: {file} (" in state(demo) and not demo.start.disabled
    (embedding,) = kept
    loaded = Embedding.load(file)
    assert loaded.digest == embedding.digest and loaded.meta["steps"] == "3"
    assert 'download="mine.safetensors"' in demo.links.value and demo.bar.value == 3


def test_a_file_in_the_repository_is_named_from_there(training, runs_folder, monkeypatch):
    monkeypatch.setattr("lib.widget_train.ROOT", runs_folder.parent)
    demo, _ = training
    demo.start.click()
    assert f": {runs_folder.name}/explore/mine.safetensors (" in state(demo)


def test_training_stops_at_any_moment_and_keeps_what_was_learned(training):
    demo, kept = training
    demo.steps.value = 1_000_000
    demo.bar.observe(lambda change: change.new >= 2 and demo.stop.click(), "value")
    demo.start.click()
    assert "kept after 2 updates" in state(demo)
    assert kept[0].meta["steps"] == "2"


def test_a_training_that_fails_keeps_what_was_learned(training, runs_folder, monkeypatch):
    demo, kept = training
    shown = demo._show

    def failing(seen, settings):
        shown(seen, settings)
        if seen[-1].step == 2:
            raise MemoryExhausted("out of memory: an update")

    monkeypatch.setattr(demo, "_show", failing)
    demo.start.click()
    assert "mdb-error" in state(demo) and "out of memory: an update" in demo.state.value
    assert kept[0].meta["steps"] == "2" and "kept after 2 updates" in demo.text.value
    assert (runs_folder / "explore" / "mine.safetensors").exists() and not demo.start.disabled


def test_a_training_leaves_the_file_of_the_one_before(training, runs_folder):
    demo, kept = training
    for _ in range(2):
        demo.start.click()
        assert "kept after 3 updates" in state(demo)
    files = sorted(path.name for path in (runs_folder / "explore").iterdir())
    assert files == ["mine-2.safetensors", "mine.safetensors"] and len(kept) == 2


def test_a_demo_that_takes_anothers_place_stops_its_training(base, training):
    """The cell is run again: the buttons of the first are gone, and nothing else would stop it."""
    demo, kept = training
    demo.steps.value = 1_000_000
    again = []
    demo.bar.observe(lambda change: change.new == 2 and again.append(rebuilt(base)), "value")
    demo.start.click()
    assert "kept after 2 updates" in state(demo) and len(again) == len(kept) == 1


def rebuilt(base):
    return widgets.Train(base, "phantom:chest/healthy", InversionSettings("<mine>"))


def test_training_says_what_it_learns_from(training, tmp_path, pictures):
    """Images of each class, all learned as one; of few, all; and which could not be read."""
    for i, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        picture = Image.fromarray((pictures[i].permute(1, 2, 0) * 255).byte().numpy())
        picture.save(tmp_path / name / f"{i}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    demo, _ = training
    demo.folder.value = str(tmp_path)
    demo.start.click()
    assert "kept after 3 updates" in state(demo)
    assert "Learned from 2 images of 2 classes, learned as one (a, b)" in demo.text.value
    assert "not read: a/broken.png" in demo.text.value


def test_training_on_a_folder_that_is_not_there_says_so(training):
    demo, kept = training
    demo.folder.value = "no/such/folder"
    demo.start.click()
    assert "mdb-error" in state(demo) and "no/such/folder" in demo.state.value
    assert not kept and not demo.start.disabled


def test_a_newer_job_takes_the_place_of_one_that_waits():
    gate, done, latest = threading.Event(), [], widget_parts.Latest()
    latest.submit(lambda: (gate.wait(SECONDS), done.append("first")))
    while latest._next is not None:  # until the first has begun
        pass
    for name in ("dropped", "last"):
        latest.submit(lambda name=name: done.append(name))
    gate.set()
    assert latest.wait(SECONDS) and done == ["first", "last"]


def test_text_states_are_remembered_and_equal(base, library):
    remembering, embedding = widget_parts.WithTextStates(base, size=2), library["chest", "healthy"]
    vectors = {embedding.token: embedding.vectors}
    states = remembering.embed([embedding.token, ""], vectors)
    assert torch.equal(states, base.embed([embedding.token, ""], vectors))
    assert remembering.embed([embedding.token, ""], vectors) is states
    assert remembering.embed(["plain"]) is not states and remembering.token_width == base.token_width


def test_a_defect_of_ours_is_shown_without_a_traceback(base, library, caplog):
    demo = widgets.Interpolate(base, library, measure=lambda *_: {"x": 1 / 0}, **QUICK)
    assert "ZeroDivisionError" in state(demo) and "Traceback" not in demo.state.value
    assert "Traceback" in caplog.text and not issubclass(ZeroDivisionError, UserError)
