"""The training demo: point at a folder, watch, stop at any moment, keep what was learned."""

import html
import io
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import ipywidgets as w
from matplotlib.figure import Figure

from lib.config import ROOT
from lib.datasets import load_images
from lib.embedding import Embedding, check_token
from lib.imagesets import DatasetError
from lib.inversion import InversionSettings, provenance, train
from lib.progress import duration
from lib.runs import runs_root
from lib.sampling import generate
from lib.widget_parts import Panel, link, model_lock, png, sheet, wide

PREVIEW_PAUSE = 10.0  # seconds of training between two previews, at least


class Train(Panel):
    """Textual inversion of a folder of images under the user's eyes.

    keep: called with the Embedding that was learned, also when it was stopped early or failed on the way;
    its file is in runs/explore, beside those before it. The loss, previews from one noise, and the time left
    are shown as it goes. Of two demos one trains: one that is made or started stops the other, whose buttons
    may be gone.
    """

    _newest: "Train | None" = None

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
        self._take_over()
        self.learned: Embedding | None = None
        self.folder = wide(w.Text(dataset, description="folder of images"), "36em")
        self.n = wide(w.BoundedIntText(100, min=1, max=100_000, description="images a class"), "16em")
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
        self.stop.on_click(self._halt)

    def _take_over(self):
        if Train._newest not in (None, self):
            Train._newest._stop.set()
        Train._newest = self

    def begin(self, _button=None) -> None:
        """Starts training as the controls stand."""
        if self.start.disabled:
            return
        self._take_over()
        self._stop.clear()
        self.start.disabled, self.stop.disabled = True, False
        self.work(self._train, alone=False)  # it shares the model: between two records others may draw

    def _halt(self, _button):
        self._stop.set()
        self.stop.disabled = True
        self.say("busy", "stopping after the updates that are under way ...")

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
        folder, n, side = self.folder.value.strip(), self.n.value, self._base.image_side
        try:
            images = load_images(folder, n, "train", side, fewer=True)
        except DatasetError:  # of a few images a hash may put none there, and nothing is tested here
            images = load_images(folder, n, "all", side, fewer=True)
        return images, InversionSettings(**values)

    def _run(self, images, settings):
        self.bar.max, self.bar.value = settings.steps, 0
        about = _about(images)
        self.text.value = html.escape(about)
        self.say("busy", f"{len(images)} images; the first updates ...")
        seen = []
        try:
            self._updates(images, settings, seen, about)
        except Exception:
            if seen:
                self.text.value = html.escape(f"{self._finish(images, settings, seen[-1])}. {about}")
            raise
        if not seen:
            self.say("ready", "stopped before the first record: nothing was learned")
            return
        kept = self._finish(images, settings, seen[-1])
        self.text.value = html.escape(f"{kept}. {about}")  # should the last pictures fail
        self._preview(seen[-1], settings, about)
        self._link_pictures()
        self.say("ready", kept)

    def _updates(self, images, settings, seen, about):
        """Trains until the end or a stop; `seen` gets the records, the vectors of the last one only."""
        previewed = 0.0
        with closing(train(self._base, images, settings)) as records:
            while not self._stop.is_set():
                with model_lock():
                    record = next(records, None)
                if record is None:
                    break
                seen[-1:] = [*(replace(old, vectors=None) for old in seen[-1:]), record]
                self._show(seen, settings)
                if record.step < settings.steps and time.perf_counter() - previewed > PREVIEW_PAUSE:
                    self._preview(record, settings, about)
                    previewed = time.perf_counter()

    def _show(self, seen, settings):
        record = seen[-1]
        left = duration(record.seconds / record.step * (settings.steps - record.step))
        self.bar.value, self.loss.value = record.step, loss_chart(seen)
        if not self._stop.is_set():
            self.say(
                "busy", f"{record.step} of {settings.steps} updates, loss {record.loss:.4f}, {left} left"
            )

    def _preview(self, record, settings, about):
        with model_lock():
            images = generate(self._base, self._embedding(record, settings), 4, steps=self._preview_steps)
        self.picture.value = png(sheet(images))
        drawn = f"Drawn after {_updates(record)}, from the same noise each time."
        self.text.value = html.escape(f"{drawn} {about}")

    @staticmethod
    def _embedding(record, settings, meta=None):
        return Embedding(record.vectors, settings.token, meta or {})

    def _finish(self, images, settings, record) -> str:
        """Writes the file, offers it, and says so."""
        self.learned = self._embedding(record, settings, provenance(self._base, images, settings, record))
        path = _free(runs_root() / "explore" / f"{self.learned.name}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        data = self.learned.save(path).read_bytes()
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        self.links.value = link("Download the embedding", path.name, data)
        if self._keep:
            self._keep(self.learned)
        return f"kept after {_updates(record)}: {shown} ({len(data) / 1000:.0f} kB), {settings.token}"

    def _link_pictures(self):
        pictures = link("Download the pictures", f"{self.learned.name}.png", self.picture.value, "image/png")
        self.links.value += f" &middot; {pictures}"


def _free(path: Path) -> Path:
    """`path`, or the first of name-2, name-3, ... that is not there: an earlier training's file stays."""
    others = (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in count(2))
    return path if not path.exists() else next(other for other in others if not other.exists())


def _about(images) -> str:
    """How many images of which classes are learned from, by which split, and which could not be read."""
    labels = list(dict.fromkeys(images.labels))
    classes = f"of {len(labels)} classes, learned as one ({', '.join(labels)})" if len(labels) > 1 else ""
    told = " ".join(filter(None, [f"Learned from {len(images)} images", classes, f"({images.note})"]))
    names = [name for name, _ in images.skipped]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return told + (f"; not read: {', '.join(names[:3])}{more}" if names else "") + "."


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
