"""The training demo: point at a folder, watch, stop at any moment, keep what was learned."""

import io
import threading
import time
from collections.abc import Callable
from contextlib import closing

import ipywidgets as w
from matplotlib.figure import Figure

from lib.config import ROOT
from lib.datasets import load_images
from lib.embedding import Embedding, check_token
from lib.inversion import InversionSettings, provenance, train
from lib.progress import duration
from lib.runs import runs_root
from lib.sampling import generate
from lib.widget_parts import Panel, link, model_lock, png, sheet, wide

PREVIEW_PAUSE = 10.0  # seconds of training between two previews, at least


class Train(Panel):
    """Textual inversion of a folder of images under the user's eyes.

    keep: called with the Embedding that was learned, also when it was stopped early; its file is in
    runs/explore. The loss, previews from one noise, and the time left are shown as it goes.
    """

    def __init__(
        self,
        base,
        dataset: str,
        settings: InversionSettings,
        preview_steps: int = 12,
        keep: Callable[[Embedding], None] | None = None,
    ):
        self._base, self._settings, self._keep = base, settings, keep
        self._preview_steps, self._stop = preview_steps, threading.Event()
        self.learned: Embedding | None = None
        self.folder = wide(w.Text(dataset, description="folder of images"), "36em")
        self.n = wide(w.BoundedIntText(100, min=1, max=100_000, description="images at most"), "16em")
        self.token = wide(w.Text(settings.token, description="token"))
        self.vectors = wide(w.IntSlider(settings.vectors, min=1, max=75, description="vectors"))
        self.steps = wide(
            w.BoundedIntText(settings.steps, min=1, max=1_000_000, description="updates"), "16em"
        )
        self.start = w.Button(description="Train", button_style="primary")
        self.stop = w.Button(description="Stop and keep", disabled=True)
        self.bar = w.IntProgress(0, min=0, max=1, layout=w.Layout(width="36em"))
        self.loss = w.Image(format="png", value=loss_chart([]), layout=w.Layout(width="360px"))
        controls = [self.folder, self.n, self.token, self.vectors, self.steps]
        super().__init__(
            [*controls, w.HBox([self.start, self.stop]), self.bar, self.loss],
            "training",
            "reading the images",
        )
        self.start.on_click(self.begin)
        self.stop.on_click(lambda _: self._stop.set())

    def begin(self, _button=None) -> None:
        """Starts training as the controls stand."""
        if self.start.disabled:
            return
        self._stop.clear()
        self.start.disabled, self.stop.disabled = True, False
        self.work(self._train, alone=False)  # it shares the model: between two records others may draw

    def _train(self):
        try:
            self._run(*self._asked())
        finally:
            self.start.disabled, self.stop.disabled = False, True

    def _asked(self):
        """The images and the settings that the controls ask for."""
        token = self.token.value.strip()
        check_token(token, "token")
        values = vars(self._settings) | {"token": token.lower()}
        values |= {"vectors": self.vectors.value, "steps": self.steps.value}
        folder, side = self.folder.value.strip(), self._base.image_side
        images = load_images(folder, self.n.value, "train", side, fewer=True)
        return images, InversionSettings(**values)

    def _run(self, images, settings):
        self.bar.max, self.bar.value = settings.steps, 0
        unread = f", {len(images.skipped)} files could not be read" if images.skipped else ""
        self.say("busy", f"{len(images)} images{unread}; the first updates ...")
        began, previewed, seen = time.perf_counter(), 0.0, []
        with closing(train(self._base, images, settings)) as records:
            while not self._stop.is_set():
                with model_lock():
                    record = next(records, None)
                if record is None:
                    break
                seen.append(record)
                self._show(seen, settings, time.perf_counter() - began)
                if record.step == settings.steps or time.perf_counter() - previewed > PREVIEW_PAUSE:
                    self._preview(record, settings)
                    previewed = time.perf_counter()
        if not seen:
            self.say("ready", "stopped before the first record: nothing was learned")
            return
        self._finish(images, settings, seen[-1])

    def _show(self, seen, settings, seconds):
        record = seen[-1]
        left = duration(seconds / record.step * (settings.steps - record.step))
        self.bar.value, self.loss.value = record.step, loss_chart(seen)
        self.say("busy", f"{record.step} of {settings.steps} updates, loss {record.loss:.4f}, {left} left")

    def _preview(self, record, settings):
        with model_lock():
            images = generate(self._base, self._embedding(record, settings), 4, steps=self._preview_steps)
        self.picture.value = png(sheet(images))
        self.text.value = f"Drawn after {_updates(record)}, from the same noise each time."

    @staticmethod
    def _embedding(record, settings, meta=None):
        return Embedding(record.vectors, settings.token, meta or {})

    def _finish(self, images, settings, record):
        self._preview(record, settings)
        self.learned = self._embedding(record, settings, provenance(self._base, images, settings, record))
        path = runs_root() / "explore" / f"{self.learned.name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = self.learned.save(path).read_bytes()
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        pictures = link("Download the pictures", f"{self.learned.name}.png", self.picture.value, "image/png")
        self.links.value = f"{link('Download the embedding', path.name, data)} &middot; {pictures}"
        if self._keep:
            self._keep(self.learned)
        self.say(
            "ready", f"kept after {_updates(record)}: {shown} ({len(data) / 1000:.0f} kB), {settings.token}"
        )


def _updates(record):
    return "one update" if record.step == 1 else f"{record.step} updates"


def loss_chart(records) -> bytes:
    """A PNG of the loss over the updates; made without pyplot, which is not for threads."""
    figure = Figure(figsize=(3.6, 1.8), dpi=100, layout="constrained")
    ax = figure.subplots()
    ax.plot([r.step for r in records], [r.loss for r in records], "o-", ms=2, lw=1, color="#0072B2")
    ax.set_xlabel("updates", fontsize=7)
    ax.set_ylabel("training loss", fontsize=7)
    ax.tick_params(labelsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
