"""A page about an embedding, to be read beside it: what it is, where from, how to use it, and what not for.

Its first lines are the metadata that model hubs read. It says what the file's header says, and no more.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lib.errors import printable

if TYPE_CHECKING:
    from lib.embedding import Embedding

UNKNOWN = "not recorded"


def card(embedding: Embedding, file: str = "embedding.safetensors") -> str:
    """Markdown for `embedding`, which lies in a file of that name."""
    meta = embedding.meta
    vectors, width = embedding.vectors.shape
    settings, versions = (_mapping(meta.get(name, "{}")) for name in ("settings", "versions"))
    told = {
        "base": f"{meta.get('base', UNKNOWN)} (digest `{meta.get('base_digest', UNKNOWN)}`)",
        "vectors": f"{vectors} of {width} numbers, RMS {embedding.vectors.square().mean().sqrt():.3f}",
        "training images": f"{meta.get('images', UNKNOWN)} (digest `{meta.get('images_digest') or UNKNOWN}`)",
        "updates": meta.get("steps", UNKNOWN),
        "loss": meta.get("loss", UNKNOWN),
        "loss on held-out images": meta.get("held_out_loss") or UNKNOWN,
        "settings": ", ".join(f"{k} = {v}" for k, v in sorted(settings.items())) or UNKNOWN,
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()) or UNKNOWN,
        "licence": meta.get("licence", UNKNOWN),
        "intended use": meta.get("intended_use", UNKNOWN),
        "digest": f"`{embedding.digest}`",
    }
    rows = "\n".join(f"| {name} | {_cell(str(value))} |" for name, value in told.items())
    base, name, token = (
        json.dumps(text, ensure_ascii=False)
        for text in (meta.get("base") or "the base it was trained on", file, embedding.token)
    )
    return f"""---
library_name: diffusers
pipeline_tag: text-to-image
tags: [textual_inversion, medical]
---

# {embedding.token}

Token vectors trained by textual inversion; the model that they are for stays as it is.

| | |
|---|---|
{rows}

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained({base})
pipe.load_textual_inversion({name})
pipe({token}, guidance_scale=3).images[0]  # more draws colours that are too strong
```

What it draws is generated: no patient, and not evidence of anything in one. It may give away whom it was
trained on; share it as you would share the images if they are few, or of few patients.
"""


def _cell(text: str) -> str:
    """What a header holds, as text in a table's cell and nothing else."""
    return printable(text).replace("|", "\\|").replace("<", "&lt;")


def _mapping(text: str) -> dict:
    """What a header of ours holds as JSON; nothing of another tool's that it does not."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
