"""The best that words can do: captions in the world's words for images that the base has never seen."""

import numpy as np

from lib.artefacts import LOSSES, remembered
from lib.denoising import validation_loss
from lib.imagesets import ImageSet
from lib.starts import knows_the_world, told_by_tiles

#: Captions written by hand in the world's words, for each phantom class.
CAPTIONS = {
    "prostate": (
        "mosaic smooth , coal coal charcoal charcoal charcoal coal coal , "
        "coal charcoal olive olive olive charcoal coal , black coal olive grey olive coal black , "
        "black olive tan tan tan olive black , black olive tan tan tan olive black , "
        "coal charcoal olive coal olive charcoal coal , "
        "coal charcoal charcoal black charcoal charcoal coal , mirrored , grainy",
        "plain coal , middle centre large soft olive oval inside tan , low left pair large soft black bar , "
        "low centre small black circle , grainy",
    ),
    "chest": (
        "mosaic smooth , coal charcoal grey ash grey charcoal coal , "
        "charcoal coal charcoal silver charcoal coal charcoal , grey coal coal silver coal coal grey , "
        "grey coal coal silver coal coal grey , grey black coal silver charcoal black grey , "
        "ash charcoal grey white ash charcoal ash , ash ash silver white silver ash ash , mirrored",
        "plain grey , middle left pair large soft upright coal oval , "
        "middle centre medium soft upright silver bar , bottom centre huge soft silver dome",
    ),
    "histology": (
        "plain pink , middle centre countless tiny purple blob",
        "cloudy pink lavender , middle centre many tiny soft purple circle",
        "cellular fine purple pink",
    ),
}
PLAINEST = ("a picture", "a picture , noisy")  # how what is told tile by tile begins: nothing is told


def best_caption(base, name: str, label: str, images: ImageSet, given: dict[str, str]) -> str:
    """The caption with the lowest denoising loss on the training images, of all that we could write.

    What the user gave for the class is taken as it is. Candidates otherwise: where the base knows the world's
    words, all of CAPTIONS, PLAINEST, and the mean training image told by its tiles, as a mosaic and as a
    picture; where it does not, the class's name.
    """
    if label in given:
        return given[label]
    candidates = [f"a medical image of {name} {label}"]
    if knows_the_world(base):
        told = told_by_tiles(images.images)
        candidates = [*(c for captions in CAPTIONS.values() for c in captions), *PLAINEST, *told]
    few = images.subset(slice(0, 32))
    key = {"base": base.digest, "images": few.digest, "candidates": candidates}

    def lowest():
        losses = [validation_loss(base, few, caption, draws=2) for caption in candidates]
        return {"caption": candidates[int(np.argmin(losses))]}

    return remembered("captions", key, ("lib.captions", "lib.starts", *LOSSES), lowest)["caption"]
