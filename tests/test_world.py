"""The world that models/mini has seen: deterministic, captioned truthfully, and free of medicine."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from lib import judge, raster, scenes, world
from lib.painting import render

LIB = Path(world.__file__).parent


def sampled(n, seed=0, sample=scenes.sample_named):
    rng = np.random.default_rng(seed)
    return [sample(rng) for _ in range(n)]


@pytest.fixture(scope="module")
def drawn_pictures():
    return sampled(150, sample=scenes.sample_picture)


def test_a_scene_is_the_same_picture_each_time():
    for scene in sampled(20):
        assert np.array_equal(render(scene), render(scene))


def test_pictures_are_rgb_in_range_at_any_side():
    for scene, side in zip(sampled(60), [32, 64, 96] * 20, strict=True):
        image = render(scene, side)
        assert image.shape == (3, side, side) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1


def test_a_scene_looks_alike_at_two_resolutions():
    differences = []
    for scene in sampled(40, seed=3):
        if {f[0] for f in scene.finish} & {"grainy", "noisy"} or scene.background in (
            "rough",
            "cloudy",
            "misty",
        ):
            continue  # noise is drawn per pixel
        small, large = render(scene, 32), render(scene, 64)
        differences.append(np.abs(large.reshape(3, 32, 2, 32, 2).mean((2, 4)) - small).mean())
    assert np.median(differences) < 0.06


def test_captions_fit_the_text_encoder_and_its_vocabulary():
    known = set(world.vocabulary())
    for scene in [*sampled(500, seed=1), *sampled(300, seed=1, sample=scenes.sample_scene)]:
        words = scene.caption().split()
        assert len(words) == scene.length() <= 75
        assert set(words) <= known


def test_a_tile_of_a_mosaic_is_where_its_word_stands():
    tables = [s for s in sampled(600, seed=5) if s.background == "mosaic" and not s.things and not s.finish]
    assert len(tables) > 3
    for scene in tables:
        image = render(scene, 70).reshape(3, 7, 10, 7, 10)[:, :, 4:6, :, 4:6].mean((2, 4))
        told = np.array([[world.COLOURS[c] for c in row] for row in scene.table]).transpose(2, 0, 1)
        assert np.abs(image - told).mean() < 0.12


def test_a_picture_is_told_by_the_mean_colours_of_its_tiles(drawn_pictures):
    plain = [s for s in drawn_pictures if not s.things and not s.finish]
    assert len(plain) > 30
    for scene in plain:
        image = render(scene, 56).reshape(3, 7, 8, 7, 8).mean((2, 4))
        told = np.array([[world.COLOURS[c] for c in row] for row in scene.table]).transpose(2, 0, 1)
        assert np.abs(image - told).mean() < 0.12
        assert world.kind(scene.caption()) == "picture"
    # Its own tiles tell a picture from the others.
    errors = [np.abs(render(plain[0], 56) - render(s, 56)).mean() for s in plain[1:]]
    assert min(errors) > 0.02


def test_what_a_picture_hides_is_held_out_too(drawn_pictures):
    hidden = [thing for scene in drawn_pictures for thing in scene.hidden.things]
    assert len(hidden) > 300
    for thing in [*hidden, *(t for s in sampled(300, sample=scenes.sample_single) for t in s.things)]:
        assert not world.held_out(thing.shape, thing.colours[0], thing.row, thing.column)


def test_regions_look_alike_at_two_resolutions():
    differences = []
    for seed in range(9):
        scene = world.Scene("regions", ("red", "white", "navy"), seed=seed)
        small, large = render(scene, 32), render(scene, 64)
        differences.append(np.abs(large.reshape(3, 32, 2, 32, 2).mean((2, 4)) - small).mean())
    assert np.median(differences) < 0.04  # a texture, which some have, is drawn per pixel


def test_nearly_half_of_the_scenes_are_grey():
    grey = [np.ptp(render(s), axis=0).mean() < 0.03 for s in sampled(300, seed=2)]
    assert 0.3 < np.mean(grey) < 0.6


def test_most_objects_are_bare():
    things = [thing for scene in sampled(300, seed=6, sample=scenes.sample_object) for thing in scene.things]
    finishes = [(t.edge, t.fill, t.outline, len(t.colours) > 1) for t in things]
    assert len(things) == 300 and 0.65 < np.mean([not any(f) for f in finishes]) < 0.95


def test_held_out_combinations_never_appear():
    for scene in [*sampled(2000, seed=4), *sampled(2000, seed=4, sample=scenes.sample_object)]:
        for thing in scene.things:
            assert not world.held_out(thing.shape, thing.colours[0], thing.row, thing.column)


def test_the_judge_reads_true_renderings():
    drawn = judge.held_out_scenes(60)
    hits = judge.agreement(drawn, [render(s) for s in drawn])
    # The position jitters by up to 0.84 of half a cell and the radius by 20 %: not every reading can agree.
    assert {k: v.mean() > 0.75 for k, v in hits.items()} == dict.fromkeys(hits, True)


def test_the_judge_is_at_chance_on_other_pictures():
    drawn = judge.held_out_scenes(60)
    hits = judge.agreement(drawn, [render(s) for s in judge.held_out_scenes(60, seed=1)])
    for name, share in judge.chance().items():
        assert hits[name].mean() < share + 0.15


def test_the_judge_sees_nothing_in_an_empty_picture():
    assert judge.read(np.full((3, 64, 64), 0.4)) is None


@pytest.mark.parametrize(
    "module", ["world", "scenes", "raster", "painting", "shards", "autoencoder", "mini", "pretrain"]
)
def test_the_base_has_seen_no_medicine(module):
    """What trains the base imports no phantom, reads no image file and names no organ."""
    source = (LIB / f"{module}.py").read_text()
    imported = {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in [*node.names, ast.alias(getattr(node, "module", None) or "")]
    }
    assert not {
        name for name in imported if re.search(r"phantom|dataset|PIL|cv2|imageio|skimage|SimpleITK", name)
    }
    kinds = ("id", "attr", "arg", "name")
    named = {getattr(node, kind, None) for node in ast.walk(ast.parse(source)) for kind in kinds}
    anatomy = "lung|heart|rib|prostate|bladder|rectum|gland|nucle(us|i)|chest|x-ray|mri|lesion|tumou?r|bone"
    words = set(world.vocabulary())
    words |= {word for name in named if isinstance(name, str) for word in name.lower().split("_")}
    assert not [w for w in words if re.fullmatch(anatomy, w)]


def test_every_shape_can_be_drawn():
    x, y = raster.grid(64)
    for shape in raster.SHAPES:
        cover = raster.coverage(shape, x, y, (0, 0), 0.5, 0.0, 2 / 64, np.zeros(3))
        assert 0.005 < cover.mean() < 0.5
