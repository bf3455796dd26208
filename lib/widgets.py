"""The demos of 90_explore that draw: interpolation, composition, and any caption or embedding.

Each is an ipywidgets box; `measure(modality, images [n, 3, H, W])` may read quantities from the picture
and returns name -> [n], which is shown under it.
"""

import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ipywidgets as w
import numpy as np

from lib.config import located
from lib.embedding import Embedding, holds_token
from lib.errors import UserError
from lib.sampling import generate
from lib.widget_inpaint import Inpaint
from lib.widget_parts import Panel, WithTextStates, line, sampling_controls, sheet, values, wide
from lib.widget_train import Train

__all__ = ["Compose", "DemoError", "Inpaint", "Interpolate", "Prompt", "Train"]

#: (modality, class) -> its embedding; the healthy class of a modality first
Library = dict[tuple[str, str], Embedding]
Measure = Callable[[str, np.ndarray], dict[str, np.ndarray]]


class DemoError(UserError):
    """Controls set to what cannot be drawn."""


def measured(measure: Measure | None, modality: str, image) -> str:
    """What `measure` reads from one image [3, H, W], in words; "" without it."""
    if measure is None:
        return ""
    read = measure(modality, np.asarray(image)[None])
    return "Measured in the picture: " + ", ".join(f"{k} {float(v[0]):.3f}" for k, v in read.items())


class _Mixture(Panel):
    """One picture of weighted embeddings of one modality; subclasses say how the weights are set.

    sampling: of `sampling_controls`.
    """

    def __init__(self, base, library: Library, measure, name, own, sampling):
        self._base, self._library, self._measure = WithTextStates(base), library, measure
        names = list(dict.fromkeys(modality for modality, _ in library))
        self.modality = wide(w.Dropdown(options=names, description="modality"))
        self.own = w.VBox()
        self.sampling = sampling_controls(**sampling)
        super().__init__([self.modality, self.own, *self.sampling.values()], name)
        self._own = own
        for widget in self.sampling.values():
            widget.observe(self.refresh, "value")
        self.modality.observe(self._choose, "value")
        self._choose()

    def labels(self) -> list[str]:
        return [label for modality, label in self._library if modality == self.modality.value]

    def weights(self) -> dict[str, float]:
        """class -> weight, as the controls stand."""
        raise NotImplementedError

    def drawing(self):
        weights = {label: weight for label, weight in self.weights().items() if weight}
        if not weights:
            raise DemoError("every weight is 0: raise one of them")
        return partial(self._draw, weights, self.modality.value, values(self.sampling))

    def _draw(self, weights, modality, settings):
        what = {self._library[modality, label]: weight for label, weight in weights.items()}
        image = generate(self._base, what, 1, **settings)[0].numpy()
        mixture = " AND ".join(f"{label} :{weight:g}" for label, weight in weights.items())
        passes = len(weights) + (settings["guidance"] * sum(weights.values()) != 1)
        cost = f"{settings['steps']} solver steps of {passes} U-Net passes, the same noise at every weight"
        return image, f"{mixture}; {cost}. {measured(self._measure, modality, image)}"

    def _choose(self, _change=None):
        for widget in self.own.children:  # or what is changed next would draw with half of it
            widget.unobserve(self.refresh, "value")
        self.own.children = self._own(self.labels())
        for widget in self.own.children:
            widget.observe(self.refresh, "value")
        self.refresh()


class Interpolate(_Mixture):
    """`first :1-w AND second :w` from one noise, the weight under a slider."""

    def __init__(self, base, library: Library, measure: Measure | None = None, **sampling):
        self.first, self.second = (wide(w.Dropdown(description=d)) for d in ("from", "to"))
        self.weight = wide(
            w.FloatSlider(0.5, min=0, max=1, step=0.05, description="weight of the second"), "30em"
        )
        super().__init__(base, library, measure, "interpolation", self._controls, sampling)

    def _controls(self, labels):
        for widget, chosen in ((self.first, labels[0]), (self.second, labels[1])):
            widget.options = labels
            widget.value = chosen
        return (self.first, self.second, self.weight)

    def weights(self):
        """class -> weight, as the controls stand."""
        if self.first.value == self.second.value:
            raise DemoError(f"both ends are {self.first.value}: choose two classes")
        return {self.first.value: round(1 - self.weight.value, 4), self.second.value: self.weight.value}


class Compose(_Mixture):
    """A weight for each class, none normalised: AUTOMATIC1111's AND."""

    def __init__(self, base, library: Library, measure: Measure | None = None, **sampling):
        super().__init__(base, library, measure, "composition", self._controls, sampling)

    def _controls(self, labels):
        return tuple(
            wide(w.FloatSlider(value, min=-1, max=2, step=0.1, description=label), "30em")
            for label, value in zip(labels, self._start(len(labels)), strict=True)
        )

    @staticmethod
    def _start(n):
        """Half of each of the first two findings; where there is but one, half of it and half healthy."""
        return [0.5] * n if n < 3 else [0.0, 0.5, 0.5, *[0.0] * (n - 3)]

    def weights(self):
        """class -> weight, as the controls stand."""
        return {widget.description: widget.value for widget in self.own.children}


class Prompt(Panel):
    """Any caption that the base knows, and any embedding from a file, named or uploaded."""

    def __init__(self, base, caption: str, library: Library | None = None, n=4, **sampling):
        self._base, self._loaded = WithTextStates(base), {}
        self.caption = wide(w.Textarea(caption, description="caption", rows=2), "46em")
        self.file = wide(w.Text(description="embedding file", placeholder="path/to/name.safetensors"), "36em")
        self.load, self.upload = w.Button(description="Load"), w.FileUpload(accept=".safetensors,.pt,.bin")
        self.told, self.known = w.HTML(), w.HTML()
        self.go = w.Button(description="Draw", button_style="primary")
        self.n = wide(w.IntSlider(n, min=1, max=8, description="pictures"))
        self.sampling = sampling_controls(**sampling)
        files = w.HBox([self.file, self.load, self.upload])
        super().__init__(
            [self.caption, files, self.told, self.known, *self.sampling.values(), self.n, self.go], "prompt"
        )
        for embedding in (library or {}).values():
            self.add(embedding)
        # At once and not in the worker, whose waiting jobs give way to newer ones: no file may be dropped.
        self.load.on_click(lambda _: self.guarded(self._load_named, say=self._tell))
        self.upload.observe(lambda _: self.guarded(self._load_uploaded, say=self._tell), "value")
        self.go.on_click(self.refresh)
        self.refresh()

    def add(self, embedding: Embedding) -> None:
        """Makes its token known to captions; one of the same token is replaced."""
        self._loaded[embedding.token] = embedding
        tokens = " ".join(f"<code>{t.replace('<', '&lt;')}</code>" for t in self._loaded)
        self.known.value = f"Tokens that a caption may hold: {tokens}"

    def drawing(self):
        """As many pictures of the caption as asked for, side by side."""
        caption, known = self.caption.value, tuple(self._loaded.values())
        if not caption.strip():
            raise DemoError("the caption is empty: write what to draw")
        asked = re.findall(r"<[^<>\s]+>", caption)
        if missing := [token for token in asked if not any(holds_token(token, e.token) for e in known)]:
            raise DemoError(
                f"{missing[0]}: no embedding of that name: load its file, or take one that is there"
            )
        given = {"n": self.n.value, "embeddings": known, **values(self.sampling)}
        return partial(self._draw, caption, given)

    def _draw(self, caption, given):
        images = generate(self._base, caption, **given)
        return sheet(images, min(4, len(images))), caption

    def _load_named(self):
        if not self.file.value.strip():
            raise DemoError("no file named: write the path of an embedding, or upload one")
        self._take(located(self.file.value.strip()))

    def _load_uploaded(self):
        uploaded = self.upload.value
        self.upload.value = ()  # or the same file could not be uploaded again
        for item in uploaded:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / Path(item["name"]).name
                path.write_bytes(bytes(item["content"]))
                try:
                    self._take(path)
                except UserError as error:
                    raise DemoError(str(error).replace(str(path), path.name)) from error

    def _take(self, path):
        embedding = Embedding.load(path)
        embedding.check_width(self._base.token_width, self._base.name)
        self.add(embedding)
        count = len(embedding.vectors)
        self._tell("ready", f"{embedding.token} loaded, {count} vectors: write it in a caption")

    def _tell(self, kind, text):
        """What came of a file, beside its controls: the state line is the drawing's."""
        self.told.value = line(kind, text)
