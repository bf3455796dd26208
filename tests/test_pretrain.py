"""The recipe of models/mini: the encoder that is set by hand, and training that resumes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser
from torch.nn import functional as F

from lib import pretrain, shards
from lib.autoencoder import build_autoencoder, set_encoder, train_decoder
from lib.base import load_base
from lib.config import ROOT
from lib.mini import build_text_encoder, build_tokenizer, build_unet, export, load_unet
from lib.painting import render
from lib.pretrain import PretrainError, Trainer, stages
from lib.scenes import sample_scene
from lib.shards import Phase, PretrainSettings
from lib.world import kind, vocabulary

TINY = PretrainSettings(
    widths=(32, 32, 32), text_width=16, text_layers=1, batch_size=2, warmup=2, samples=12, scenes=8,
    decoder_samples=4, decoder_batch_size=4, autoencoder_widths=(24, 48, 64),
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_every_word_of_the_world_is_one_token(tokenizer):
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word
    assert len(tokenizer("neverheardof").input_ids) > 3
    assert tokenizer.unk_token_id not in tokenizer("neverheardof").input_ids[1:-1]


def test_the_encoder_is_the_principal_components_of_patches():
    """What the convolutions compute against a singular value decomposition in numpy."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.stack([render(sample_scene(rng)) for _ in range(64)])) * 2 - 1
    model = build_autoencoder(TINY).eval()
    set_encoder(model, x)
    with torch.no_grad():
        posterior = model.encode(x).latent_dist
    patches = x.reshape(64, 3, 16, 4, 16, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 48).numpy()
    centred = patches - patches.mean(0)
    _, singular, _ = np.linalg.svd(centred, full_matrices=False)
    found = posterior.mean.permute(0, 2, 3, 1).reshape(-1, TINY.latent_channels).numpy()
    deviation = singular[: TINY.latent_channels] / np.sqrt(len(patches))
    np.testing.assert_allclose(found.std(0) / found.std(0)[0], np.sqrt(deviation / deviation[0]), rtol=0.01)
    assert abs((found**2).mean() - 1) < 0.01
    # Linear: the patches' part in the span of the components can be read off the latents.
    weights, *_ = np.linalg.lstsq(found, centred, rcond=None)
    explained = 1 - ((centred - found @ weights) ** 2).sum() / (centred**2).sum()
    best = (singular[: TINY.latent_channels] ** 2).sum() / (singular**2).sum()
    assert explained == pytest.approx(best, abs=1e-3)
    assert torch.allclose(posterior.std, torch.tensor(0.02))


def trained(folder, tokenizer, samples, parts=1, **changes):
    for part in range(1, parts + 1):
        settings = replace(TINY, samples=samples, **changes)
        trainer = Trainer(settings, tokenizer, folder / "diffusion.pt")
        for record in trainer.run(*made(), every=2, save_every=4):
            if part < parts and record.samples >= 6 * part:
                break
    return trainer


def made():
    """Latents and their captions."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((6, 24, 16, 16)).astype(np.float16)
    captions = [
        "plain red",
        "plain blue , high left large circle",
        "gradient upwards red blue",
        "a",
        "b",
        "c",
    ]
    return latents, captions


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon", "half": True}])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, tokenizer, changes):
    for name in "ab":
        (tmp_path / name).mkdir()
    whole = trained(tmp_path / "a", tokenizer, 12, **changes)
    broken = trained(tmp_path / "b", tokenizer, 12, parts=2, **changes)
    for a, b in zip(whole.average.parameters(), broken.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_training_on_a_gpu_goes_on_on_a_cpu(tmp_path, tokenizer):
    """Whose optimizer keeps its rate as a tensor, and is told that it may be recorded."""
    trained(tmp_path, tokenizer, 12, parts=2)
    path = tmp_path / "diffusion.pt"
    state = torch.load(path, weights_only=True)
    for group in state["optimizers"][0]["param_groups"]:
        group |= {"lr": torch.tensor(group["lr"]), "capturable": True}
    torch.save(state, path)
    trainer = trained(tmp_path, tokenizer, 16)
    assert trainer.samples == 16 and isinstance(trainer.optimizers[0].param_groups[0]["lr"], float)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_moves_every_weight_it_should(tmp_path, tokenizer, optimizer):
    torch.manual_seed(TINY.seed)
    before = Trainer(TINY, tokenizer, tmp_path / "none.pt").model["unet"].state_dict()
    after = trained(tmp_path, tokenizer, 12, optimizer=optimizer).model["unet"].state_dict()
    assert sum(torch.equal(before[k], after[k]) for k in before) == 0


def test_muon_makes_the_singular_values_of_an_update_about_equal(tmp_path, tokenizer):
    """And leaves the words' vectors to AdamW, which moves those alone that were read."""
    trainer = trained(tmp_path, tokenizer, 0, optimizer="muon")
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    moved = [names[id(p)] for p, _ in trainer.matrices]
    assert len(moved) > 50 and not any("embeddings" in name or "conv_in" in name for name in moved)
    weight, matrix = next((p, m) for p, m in trainer.matrices if p.ndim == 4)
    assert matrix.data_ptr() == weight.data_ptr() and matrix.shape == weight.flatten(1).shape
    before = weight.detach().clone()
    trained(tmp_path, tokenizer, 2, optimizer="muon")  # the same draws
    trainer.settings = replace(trainer.settings, samples=2)
    list(trainer.run(*made()))
    change = torch.linalg.svdvals((weight - before).flatten(1))
    assert change.max() < 3 * change.median()


def test_half_precision_learns_what_single_does(tmp_path, tokenizer):
    for name in "ab":
        (tmp_path / name).mkdir()
    one, half = trained(tmp_path / "a", tokenizer, 12), trained(tmp_path / "b", tokenizer, 12, half=True)
    for a, b in zip(one.model.parameters(), half.model.parameters(), strict=True):
        assert b.dtype == torch.float32 and (a - b).abs().max() < 0.05


def test_objects_are_painted_beside_the_scenes(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 64)
    settings = replace(TINY, scenes=64, objects=100)
    names = shards.shard_names(settings)
    assert names == ["scenes-00000", "objects-00000", "objects-00001"]
    captions = {}
    for name in names:
        shards.write_shard(tmp_path, name, settings)
        captions[name] = json.loads((tmp_path / f"{name}.json").read_text())
    assert [len(captions[name]) for name in names] == [64, 64, 36]
    assert {kind(c) for c in captions[names[1]] + captions[names[2]]} == {"single"}
    assert captions[names[1]] != captions[names[2]] and len({kind(c) for c in captions[names[0]]}) > 2


def test_the_running_mean_keeps_no_history(tmp_path, tokenizer):
    trainer = trained(tmp_path, tokenizer, 12)
    assert all(p.grad_fn is None and not p.requires_grad for p in trainer.average.parameters())


def test_all_stages_end_in_a_pipeline_that_loads(tmp_path):
    records = list(stages(tmp_path / "work", tmp_path / "model", TINY))
    base = load_base(tmp_path / "model", "cpu")
    assert base.latent_shape == (12, 16, 16) and base.prediction_type == "v_prediction"
    assert base.dtype == torch.float32 and base.image_side == 64
    again = list(stages(tmp_path / "work", tmp_path / "model", TINY))
    assert len(again) <= len(records)
    further = replace(TINY, seed=1)
    list(stages(tmp_path / "further", tmp_path / "second", further, start=tmp_path / "model"))
    told = json.loads((tmp_path / "second" / "recipe.json").read_text())
    assert [run["seed"] for run in told] == [TINY.seed, 1]  # of both runs, in order
    first, second = (tmp_path / name / "tokenizer" / "tokenizer.json" for name in ("model", "second"))
    assert first.read_bytes() == second.read_bytes()


@torch.no_grad()
def test_a_unet_that_attends_at_its_finest_level_starts_where_the_other_ended():
    """And what was added comes to nothing there, but can be learned: it is added to what passes by."""
    generator = torch.Generator().manual_seed(0)
    plain, grown = build_unet(TINY), build_unet(replace(TINY, fine_attention=True))
    load_unet(grown, plain.state_dict())
    inputs = (
        torch.randn(2, 12, 16, 16, generator=generator),
        torch.tensor([20, 900]),
        torch.randn(2, 5, TINY.text_width, generator=generator),
    )
    assert torch.equal(grown(*inputs).sample, plain(*inputs).sample)
    with torch.enable_grad():
        grown(*inputs).sample.square().mean().backward()
    ends = [p for name, p in grown.up_blocks[-1].named_parameters() if ".proj_out.weight" in name]
    assert len(ends) == 2 and all(p.grad.abs().sum() > 0 for p in ends)
    load_unet(build_unet(TINY), plain.state_dict())  # one of the same shape has it all
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_unet(build_unet(TINY), grown.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):  # its resnets are no additions
        load_unet(grown, {name: w for name, w in plain.state_dict().items() if ".resnets." not in name})


def test_a_decoder_whose_training_was_interrupted_goes_on(tmp_path):
    settings, checkpoint = replace(TINY, decoder_samples=64), tmp_path / "autoencoder.pt"
    shards.write_shard(tmp_path / "scenes", "scenes-00000", settings)
    train = lambda: train_decoder(settings, tmp_path / "scenes", ["scenes-00000"], checkpoint, every=1)  # noqa: E731
    first = [record for record, _ in zip(train(), range(12), strict=False)]
    assert not checkpoint.exists()
    rest = list(train())
    assert first[-1].samples == 48 and [r.samples for r in rest] == [44, 48, 52, 56, 60, 64]
    assert [p.name for p in tmp_path.glob("*.pt")] == [checkpoint.name]


def test_export_keeps_the_weights_in_half_precision(tmp_path, tokenizer):
    trainer = trained(tmp_path, tokenizer, 4)
    tokenizer(["plain red"], padding="max_length", truncation=True, max_length=77)
    export(tmp_path / "model", TINY, tokenizer, build_autoencoder(TINY), trainer.average)
    written = json.loads((tmp_path / "model" / "tokenizer" / "tokenizer.json").read_text())
    assert written["padding"] is None and written["truncation"] is None  # which is a call's business
    stored = load_file(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}
    for name, value in trainer.average["unet"].state_dict().items():
        assert F.l1_loss(stored[name].float(), value) <= 1e-3 * value.abs().mean() + 1e-4


def test_each_phase_shows_its_kinds(tmp_path, tokenizer):
    captions = [
        "plain red",
        "mosaic tiled , red red",
        "plain blue , high left tiny red circle",
        "plain blue , high left few tiny red circle",
        "mosaic smooth , blue",
    ]
    assert [kind(c) for c in captions] == ["other", "mosaic", "single", "other", "mosaic"]
    place = {tuple(tokenizer(c, padding="max_length", max_length=77).input_ids): c for c in captions}
    phases = (
        Phase(40, 2.0, mosaics=1.0),
        Phase(80, 8.0, singles=1.0),
        Phase(400, 2.0, mosaics=0.5, singles=0.5),
        Phase(600, 2.0),
    )
    settings = replace(TINY, samples=800, curriculum=phases, caption_dropout=0.0)
    trainer = Trainer(settings, tokenizer, tmp_path / "diffusion.pt")
    shown, steps = [], []

    def update(z, noise, step, ids):
        shown.extend(place[tuple(row)] for row in ids.tolist())
        steps.extend(step.tolist())
        return torch.zeros(())

    trainer._update = update
    list(trainer.run(np.zeros((5, 24, 16, 16), np.float16), captions))
    assert {kind(c) for c in shown[:40]} == {"mosaic"} and set(shown[40:80]) == {captions[2]}
    assert {kind(c) for c in shown[80:400]} == {"mosaic", "single"}
    assert set(shown[400:600]) == set(captions) and set(shown[600:]) == set(
        captions
    )  # the last phase goes on
    assert np.mean(steps[40:80]) > 800 > np.mean(steps[400:600])


def test_the_text_encoder_starts_out_knowing_where_a_word_stands(tokenizer):
    """A linear reading of the last states finds a word's place in a row of eight, whatever the word."""
    torch.manual_seed(0)
    encoder = build_text_encoder(PretrainSettings(), tokenizer).eval()
    ids = torch.randint(len(tokenizer), (60, 77))
    with torch.no_grad():
        states = encoder(ids).last_hidden_state.double()
    place = torch.arange(77).remainder(8).double().expand(60, -1)
    x = torch.cat([states, torch.ones(60, 77, 1)], -1)
    weights = torch.linalg.lstsq(x[:40].flatten(0, 1), place[:40].flatten()[:, None]).solution
    error = (x[40:].flatten(0, 1) @ weights)[:, 0] - place[40:].flatten()
    assert 1 - error.var() / place.var() > 0.8


def test_torchrun_takes_the_commands_that_are_told():
    """It refuses options that could be its own, however far behind the module's name they stand."""
    card = (ROOT / "models" / "mini" / "README.md").read_text()
    told = (pretrain.__doc__ + card).replace("\\\n", " ").splitlines()
    commands = [line.split("torchrun", 1)[1].split() for line in told if "torchrun --" in line]
    assert len(commands) == 4 and any("--base" in command for command in commands)
    for command in commands:
        parsed = get_args_parser().parse_args(command)
        behind = command[command.index("lib.pretrain") + 1 :]
        assert (parsed.training_script, parsed.training_script_args) == ("lib.pretrain", behind)


def test_a_folder_begun_with_other_settings_is_refused(tmp_path):
    """What is there would be taken for what was asked for, and the recipe tell of it what is not so."""
    list(stages(tmp_path / "work", tmp_path / "model", replace(TINY, samples=0)))
    list(stages(tmp_path / "work", tmp_path / "model", replace(TINY, samples=0)))  # as before torchrun
    assert list(stages(tmp_path / "work", tmp_path / "model", replace(TINY, samples=4, rate=1e-4)))
    for change in ({"seed": 1}, {"scenes": 9}, {"decoder_samples": 8}, {"optimizer": "muon"}):
        ((name, value),) = change.items()
        with pytest.raises(PretrainError, match=f"begun with {name} = .*, not {value}: name another folder"):
            list(stages(tmp_path / "work", tmp_path / "model", replace(TINY, **change)))
    with pytest.raises(PretrainError, match="begun with start = None, not [0-9a-f]+: name another folder"):
        list(stages(tmp_path / "work", tmp_path / "second", TINY, start=tmp_path / "model"))
    (tmp_path / "work" / "settings.json").unlink()
    with pytest.raises(PretrainError, match="begun with settings that nothing tells"):
        list(stages(tmp_path / "work", tmp_path / "model", TINY))


def test_a_training_that_ran_away_leaves_the_last_checkpoint(tmp_path, tokenizer, monkeypatch):
    trained(tmp_path, tokenizer, 4)
    before = (tmp_path / "diffusion.pt").read_bytes()
    lost = torch.tensor(float("nan"))
    monkeypatch.setattr(Trainer, "_update", lambda self, *_: lost)
    trainer = Trainer(replace(TINY, samples=12), tokenizer, tmp_path / "diffusion.pt")
    with pytest.raises(PretrainError, match="the loss is nan after 8 samples: lower the rate"):
        list(trainer.run(*made(), every=100, save_every=4))
    assert (tmp_path / "diffusion.pt").read_bytes() == before
