"""The inpainting demo: a disc, placed by sliders or by a click, is drawn anew under a disease."""

from functools import partial

import ipywidgets as w
import numpy as np
from ipyevents import Event

from lib.concepts import emphasised
from lib.sampling import inpaint
from lib.widget_parts import Panel, WithTextStates, png, sampling_controls, values, wide

CHANNELS = {"prostate": ("T2W", "ADC", "DWI")}  # what red, green and blue are
_RING = np.array([1.0, 0.85, 0.0], np.float32)  # of the mask's edge


class Inpaint(Panel):
    """Before, after and difference of a masked disc; where channels are modalities, each by itself.

    library: (modality, class) -> Embedding, healthy first; emphasis: how many times what tells the class from
    it is painted. pictures: modality -> images [n, 3, H, W] in [0, 1] to paint in.
    measure: as in lib.widgets; here told beside what it reads before. sampling: of `sampling_controls`.
    """

    def __init__(self, base, library, pictures, measure=None, **sampling):
        self._base, self._library, self._pictures = WithTextStates(base), library, pictures
        self._measure = measure
        side = base.image_side
        self.modality = wide(w.Dropdown(options=list(pictures), description="modality"))
        self.number = wide(w.IntSlider(0, min=0, max=0, description="picture"))
        self.disease = wide(w.Dropdown(description="draw inside"))
        self.column, self.row, self.radius = (
            wide(w.IntSlider(value, min=low, max=high, description=name))
            for name, value, low, high in (
                ("mask: column", side // 2, 0, side - 1),
                ("mask: row", side // 2, 0, side - 1),
                ("mask: radius", side // 6, 2, side // 2),
            )
        )
        self.emphasis = wide(w.FloatSlider(3.0, min=1.0, max=5.0, step=0.5, description="emphasis"))
        self.sampling = sampling_controls(**sampling)
        self.before = w.Image(format="png")
        self.before.layout.cursor = "crosshair"
        self.hint = w.HTML("Click in the picture to place the mask, or use the sliders.")
        mask = [self.column, self.row, self.radius]
        how = [*mask, self.emphasis, *self.sampling.values()]
        left = w.VBox([self.modality, self.number, self.disease, *how])
        # Without object_fit the picture fills its element, so that a click's place is the picture's.
        super().__init__([w.HBox([left, w.VBox([self.hint, self.before])])], "inpainting")
        self._moving = False
        self.click = Event(source=self.before, watched_events=["click"], prevent_default_action=True)
        self.click.on_dom_event(self._clicked)
        for widget in (self.number, self.disease, *how):
            widget.observe(self.refresh, "value")
        self.modality.observe(self._choose, "value")
        self._choose()

    @property
    def image(self) -> np.ndarray:
        """What is painted in, float32 [3, H, W]."""
        return np.asarray(self._pictures[self.modality.value][self.number.value], np.float32)

    @property
    def mask(self) -> np.ndarray:
        """True [H, W] where something new may appear."""
        rows, columns = np.ogrid[: self._base.image_side, : self._base.image_side]
        return np.hypot(rows - self.row.value, columns - self.column.value) <= self.radius.value

    def refresh(self, _change=None):
        """Shows the mask on the picture at once, and paints when the worker is free."""
        if self._moving:
            return
        self.before.value = png(outlined(self.image, self.mask))
        super().refresh()

    def drawing(self):
        """Before, after and difference beside each other, and what is measured in the first two."""
        modality = self.modality.value
        healthy = next(e for (of, _), e in self._library.items() if of == modality)
        what = emphasised(healthy, [self._library[modality, self.disease.value]], self.emphasis.value)
        return partial(self._draw, modality, what, self.image, self.mask, values(self.sampling))

    def _draw(self, modality, what, image, mask, settings):
        painted = inpaint(self._base, what, image, mask, **settings)[0].numpy()
        change = np.abs(painted - image)
        outside = change.max(0)[~grown(mask)].max(initial=0.0)
        said = (
            f"before, after, difference{_channel_names(modality)}. "
            f"Largest change outside the mask and its seam: {outside:.3g}."
        )
        if self._measure:
            read = self._measure(modality, np.stack([image, painted]))
            said += " Measured before and after: " + ", ".join(
                f"{name} {float(v[0]):.3f} to {float(v[1]):.3f}" for name, v in read.items()
            )
        return comparison(image, painted, modality), said

    def _choose(self, _change=None):
        self._moving = True
        labels = [label for modality, label in self._library if modality == self.modality.value]
        self.number.max = len(self._pictures[self.modality.value]) - 1
        self.number.value = min(self.number.value, self.number.max)
        self.disease.options = labels
        self.disease.value = labels[-1]
        self._moving = False
        self.refresh()

    def _clicked(self, event):
        side = self._base.image_side
        self._moving = True
        for slider, at, length in (
            (self.column, "relativeX", "boundingRectWidth"),
            (self.row, "relativeY", "boundingRectHeight"),
        ):
            slider.value = int(np.clip(event[at] / max(event[length], 1) * side, 0, side - 1))
        self._moving = False
        self.refresh()


def comparison(before, after, modality: str) -> np.ndarray:
    """before | after | difference, float32 [H, W, 3]; below it, each channel that is a modality by itself."""
    rows = [np.stack([before, after, np.abs(after - before)])]
    if modality in CHANNELS:
        rows += [np.repeat(rows[0][:, c : c + 1], 3, 1) for c in range(3)]
    lines = [np.concatenate(list(np.pad(row, ((0, 0), (0, 0), (0, 1), (0, 1)))), -1) for row in rows]
    return np.concatenate(lines, -2).transpose(1, 2, 0)


def outlined(image, mask) -> np.ndarray:
    """The image [3, H, W] with the mask's edge drawn in."""
    edge = grown(mask, 1) & ~mask
    return np.where(edge, _RING[:, None, None], image)


def grown(mask, pixels: int = 4) -> np.ndarray:
    """The mask and what lies within `pixels` of it along rows and columns: the seam's reach."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, iterations=pixels)


def _channel_names(modality):
    return f"; below: {', '.join(CHANNELS[modality])}" if modality in CHANNELS else ""
