"""What every demo is made of: a picture, a line that says what goes on, a download, and one worker.

Work is done in a thread, so that a notebook stays alive, and one demo at a time has the model.
"""

import base64
import html
import io
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import ipywidgets as w
import numpy as np
from PIL import Image

from lib.errors import UserError
from lib.figures import tile
from lib.sampling import SAMPLERS

SCALE = 4  # screen pixels for one of a small picture's
MAX_SIDE = 512  # pixels of a picture on the screen, at most
_COLOURS = {"ready": "#1b6b3a", "busy": "#8a5a00", "error": "#a40000"}
_model = threading.Lock()
Drawing = Callable[[], tuple[np.ndarray, str]]


class WithTextStates:
    """A base that remembers the text states of the prompts it was last asked for."""

    def __init__(self, base, size: int = 64):
        self._base, self._size, self._states = base, size, {}

    def __getattr__(self, name):
        return getattr(self._base, name)

    def embed(self, prompts, vectors=None):
        """As `Base.embed`, without gradient."""
        known = {token: rows.numpy().tobytes() for token, rows in (vectors or {}).items()}
        key = (tuple(prompts), tuple(known.items()))
        if key not in self._states:
            if len(self._states) >= self._size:
                self._states.pop(next(iter(self._states)))
            self._states[key] = self._base.embed(prompts, vectors)
        return self._states[key]


class Latest:
    """Runs the newest job it is given in a thread; one that waits gives way to a newer one."""

    def __init__(self):
        self._lock, self._next, self._thread = threading.Lock(), None, None

    def submit(self, job: Callable[[], None]) -> None:
        """Runs `job` after the one at work; one that waited is dropped for it."""
        with self._lock:
            self._next = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Until nothing is left to do; False if it took longer than that."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def _work(self):
        while True:
            with self._lock:
                job, self._next = self._next, None
                if job is None:
                    self._thread = None
                    return
            job()


class Panel(w.VBox):
    """A demo: controls above, a state line, a picture, what was measured, a link to keep it.

    `drawing` (of a subclass) reads the controls and returns a function, to be called in the worker's thread,
    that computes (image float [3, H, W] or [H, W, 3], text). A UserError of either becomes the state line,
    and the last picture stays.
    """

    def __init__(self, controls: list[w.Widget], name: str, busy: str = "drawing", **traits):
        self.name, self._busy, self._latest = name, busy, Latest()
        self.state = w.HTML()
        self.picture = w.Image(format="png", value=png(np.ones((3, 64, 64))))
        self.picture.layout.object_fit, self.picture.layout.max_width = "contain", "42em"
        self.text, self.links = w.HTML(), w.HTML()
        super().__init__([*controls, self.state, self.picture, self.text, self.links], **traits)
        self.add_class("mdb-demo")
        self.say("ready", "")

    def drawing(self) -> Drawing:
        """What computes (image, text), of the controls as they stand now, however they are moved later."""
        raise NotImplementedError

    def refresh(self, _change=None) -> None:
        """Draws as the controls stand now; what waits is dropped for it."""
        try:
            drawing = self.drawing()
        except UserError as error:
            drawing = partial(_fail, error)
        self.work(partial(self._redraw, drawing))

    def work(self, job: Callable[[], None], alone: bool = True) -> None:
        """Runs `job` in the worker. alone: it has the model to itself."""

        def told():
            self.say("busy", f"{self._busy} ...")  # one before it may have said that it is ready
            self.guarded(job, alone)

        self.say("busy", f"{self._busy} ...")
        self._latest.submit(told)

    def wait(self, seconds: float | None = None) -> bool:
        """Until the picture is the one that the controls ask for."""
        return self._latest.wait(seconds)

    def say(self, kind: str, text: str) -> None:
        """The state line: kind is ready, busy or error."""
        self.state.value = line(kind, text, f"mdb-{kind}")

    def _redraw(self, drawing):
        started = time.perf_counter()
        image, text = drawing()
        data = png(image)
        self.picture.value, self.text.value = data, html.escape(text)
        self.links.value = link("Download the picture", f"{self.name}.png", data, "image/png")
        self.say("ready", f"drawn in {time.perf_counter() - started:.2f} s")

    def guarded(self, job: Callable[[], None], alone: bool = False, say=None) -> None:
        """Runs `job` here and now; what it raises becomes the state line, or is told to say(kind, text)."""
        say = say or self.say
        try:
            if alone:
                with _model:
                    job()
            else:
                job()
        except UserError as error:
            say("error", str(error))
        except Exception as error:  # noqa: BLE001 - a thread has nobody above it to tell
            logging.getLogger(__name__).exception("%s failed", self.name)
            say("error", f"{type(error).__name__}: {error}")


def _fail(error):
    raise error


def model_lock() -> threading.Lock:
    """Held by the demo that computes, so that none waits long for two that share the cores."""
    return _model


def line(kind: str, text: str, name: str = "") -> str:
    """HTML of a line that says how something stands: kind is ready, busy or error; name: its class."""
    role = "alert" if kind == "error" else "status"
    style = f"color:{_COLOURS[kind]};min-height:1.4em;line-height:1.4em;white-space:normal"
    return f'<div class="{name}" role="{role}" style="{style}">{html.escape(text)}</div>'


def png(image) -> bytes:
    """A PNG of an image, float [3, H, W] or [H, W, 3] in [0, 1], enlarged without smoothing if small."""
    image = np.asarray(image, dtype=np.float32)
    if image.shape[0] == 3 and image.shape[-1] != 3:
        image = image.transpose(1, 2, 0)
    picture = Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8))
    times = max(1, min(SCALE, MAX_SIDE // max(picture.size)))
    buffer = io.BytesIO()
    picture.resize((picture.width * times, picture.height * times), Image.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def sheet(images, columns: int | None = None) -> np.ndarray:
    """Images [n, 3, H, W] side by side, as `png` takes them."""
    return tile(images, columns)


def link(text: str, name: str, data: bytes, kind: str = "application/octet-stream") -> str:
    """HTML of a link that saves `data` as a file called `name`; it needs no server."""
    inline = base64.b64encode(data).decode()
    return f'<a download="{html.escape(name)}" href="data:{kind};base64,{inline}">{html.escape(text)}</a>'


def wide(widget: w.Widget, width: str = "28em") -> w.Widget:
    """The widget with room for its name beside it."""
    widget.style.description_width = "11em"
    widget.layout.width = width
    return widget


def sampling_controls(
    guidance: float = 3.0, steps: int = 16, seed: int = 0, sampler: str = "euler_a"
) -> dict[str, w.Widget]:
    """guidance, steps, sampler and seed, each as `generate` takes it."""
    return {
        "guidance": wide(
            w.FloatSlider(
                guidance, min=min(1, guidance), max=max(8, guidance), step=0.5, description="guidance"
            )
        ),
        "steps": wide(w.IntSlider(steps, min=min(4, steps), max=max(50, steps), description="solver steps")),
        "sampler": wide(w.Dropdown(options=list(SAMPLERS), value=sampler, description="solver"), "20em"),
        "seed": wide(w.BoundedIntText(seed, min=0, max=2**31 - 1, description="seed"), "16em"),
    }


def values(controls: dict[str, w.Widget]) -> dict:
    """name -> value of the controls, as lib.sampling takes them."""
    return {name: widget.value for name, widget in controls.items()}
