"""Trains models/mini from scratch on captioned procedural scenes (lib.world), on a CPU or a GPU.

Four stages, each resumable and each with files of its own under one folder: scenes are painted in
shards, an autoencoder learns to compress them, its latents are written once, and the text encoder
and the U-Net learn together to denoise the latents under their captions. `export` writes the result
as an ordinary diffusers StableDiffusionPipeline folder.

    python -m lib.pretrain runs/pretrain runs/mini     # all stages, resuming what is there

The last stage is the long one, and can use several processes once the others are done:

    python -m lib.pretrain runs/pretrain runs/mini --samples 0
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m lib.pretrain runs/pretrain runs/mini

or a GPU, on which it computes in bfloat16 and replays its updates (lib.graphs):

    python -m lib.pretrain runs/pretrain runs/mini --device cuda --batch-size 512
"""

import argparse
import copy
import json
import os
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import joblib
import numpy as np
import torch
from torch import distributed
from torch.nn import functional as F

from lib.autoencoder import build_autoencoder, encode_shard, train_decoder
from lib.config import plain
from lib.errors import UserError
from lib.graphs import Recorded
from lib.mini import build_scheduler, build_text_encoder, build_tokenizer, build_unet, export, load_unet
from lib.pipelines import read_pipeline
from lib.products import attend_plainly
from lib.runs import path_digest
from lib.shards import PretrainRecord, PretrainSettings, replace_file, shard_names, write_shard
from lib.world import kind

#: Settings that may differ between two runs in one folder: those of the last stage, which goes on under them.
FREE = {"samples", "curriculum", "batch_size", "rate", "warmup", "decay_share", "half"}


class PretrainError(UserError):
    """A folder that was begun with other settings, or a training that ran away."""


class Trainer:
    """Text encoder and U-Net, trained together on cached latents; keeps an EMA; resumes, on a CPU exactly.

    Under torchrun each process takes a batch of its own and the gradients are averaged; on a CPU two
    processes of one thread outrun one of two.
    """

    def __init__(self, settings, tokenizer, checkpoint, device="cpu", start=None):
        """start: a pipeline whose U-Net and text encoder are trained further; None: random weights."""
        torch.manual_seed(settings.seed)
        self.settings, self.tokenizer, self.checkpoint, self.device = (
            settings,
            tokenizer,
            Path(checkpoint),
            device,
        )
        self.rank, self.processes = (
            int(os.environ.get("RANK", 0)),
            int(os.environ.get("WORLD_SIZE", 1)),
        )
        self.model = torch.nn.ModuleDict(
            {"unet": build_unet(settings), "text_encoder": build_text_encoder(settings, tokenizer)}
        ).to(device)
        torch.nn.init.zeros_(self.model["unet"].conv_out.weight)
        if start is not None:
            load_unet(self.model["unet"], start.unet.state_dict())
            self.model["text_encoder"].load_state_dict(start.text_encoder.state_dict())
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.on_gpu = torch.device(device).type == "cuda"
        if settings.half and not self.on_gpu:
            attend_plainly(self.model["unet"])
            self.model["text_encoder"].set_attn_implementation("eager")
        self.matrices, self.optimizers = self._optimizers()
        self._recorded = Recorded(first=3)  # in which the optimizer makes its state, too
        self.scheduler = build_scheduler()
        self.samples, self.seconds = 0, 0.0
        if self.processes > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo" if device == "cpu" else "nccl")
        if self.checkpoint.exists():
            self._restore()

    def _optimizers(self):
        """(weights that Muon moves, each with the matrix [outputs, rest] that it is seen as, optimizers)"""
        s, matrices = self.settings, []
        if s.optimizer == "muon":
            ends = "token_embedding", "position_embedding", "conv_in", "conv_out"
            matrices = [
                (p, torch.nn.Parameter(p.detach().flatten(1)))
                for name, p in self.model.named_parameters()
                if p.ndim > 1 and not any(end in name for end in ends)
            ]
        taken = {id(p) for p, _ in matrices}
        adam = torch.optim.AdamW(
            [p for p in self.model.parameters() if id(p) not in taken],
            torch.tensor(s.rate, device=self.device) if self.on_gpu else s.rate,
            betas=(0.9, 0.99),
            weight_decay=s.weight_decay,
            capturable=self.on_gpu,
        )
        if not matrices:
            return matrices, [adam]
        seen = [matrix for _, matrix in matrices]
        muon = torch.optim.Muon(seen, s.rate, s.weight_decay, adjust_lr_fn="match_rms_adamw")
        return matrices, [muon, adam]

    def run(self, latents, captions, every=None, save_every=None):
        """Trains on latents [n, 2C, h, w] (mean, std) and n captions; yields a record every so often.

        every, save_every: scenes between records and checkpoints; None: those of 200 and 250 updates
        """
        s, c = self.settings, self.settings.latent_channels
        tokens = self.tokenizer(
            [*captions, ""],
            padding="max_length",
            truncation=True,
            max_length=77,
            return_tensors="pt",
        ).input_ids
        tokens, latents = tokens.to(self.device), torch.from_numpy(latents).to(self.device)
        groups, noises = _groups(captions), torch.Generator(self.device)
        start, before, running = time.perf_counter(), self.seconds, []
        batch = s.batch_size * self.processes
        every, save_every = every or 200 * batch, save_every or 250 * batch
        while self.samples < s.samples:
            generator = np.random.default_rng([s.seed, self.samples, self.rank])
            phase = next((p for p in s.curriculum if self.samples < p.samples), s.curriculum[-1])
            rows = _rows(generator, groups, phase, s.batch_size)
            steps = np.int64(999.999 * (1 - generator.random(s.batch_size) ** phase.noise_bias))
            named = np.where(generator.random(s.batch_size) < s.caption_dropout, len(captions), rows)
            noises.manual_seed(int(generator.integers(2**62)))
            rows, steps, named = (torch.from_numpy(a).to(self.device) for a in (rows, steps, named))
            shape = (2, s.batch_size, c, *latents.shape[2:])
            noise = torch.randn(shape, generator=noises, device=self.device)
            moments = latents[rows].float()
            z = moments[:, :c] + moments[:, c:] * noise[0]
            running.append(self._update(z, noise[1], steps, tokens[named]))
            self.samples += batch
            if self.samples % every < batch or self.samples >= s.samples:
                self.seconds = before + time.perf_counter() - start
                loss, running = self._finite_mean(running), []
                if self.rank == 0:
                    yield PretrainRecord("diffusion", self.samples, loss, self._rate(), self.seconds)
            if self.rank == 0 and (self.samples % save_every < batch or self.samples >= s.samples):
                self._finite_mean(running)
                self.seconds = before + time.perf_counter() - start
                self._save()

    def _finite_mean(self, losses):
        """Their mean, nan of none; raises before anything is kept of a training whose numbers went wrong."""
        loss = float(torch.stack(losses).mean()) if losses else float("nan")
        if losses and not np.isfinite(loss):
            raise PretrainError(
                f"the loss is {loss} after {self.samples} samples: lower the rate; the checkpoint stays"
            )
        return loss

    def _rate(self):
        s = self.settings
        updates, left = self.samples / (s.batch_size * self.processes), 1 - self.samples / max(s.samples, 1)
        return s.rate * min(1.0, (updates + 1) / s.warmup, max(left, 0.0) / s.decay_share + 1e-3)

    def _update(self, z, noise, steps, ids):
        for group in (g for optimizer in self.optimizers for g in optimizer.param_groups):
            if torch.is_tensor(group["lr"]):
                group["lr"].fill_(self._rate())
            else:
                group["lr"] = self._rate()
        inputs = z, noise, steps, ids
        alone = self.processes == 1 and not self.matrices  # neither processes that talk nor Muon are recorded
        loss = self._recorded(self._step, *inputs) if alone else self._step(*inputs)
        decay = min(self.settings.ema, 1 - 5.0 / (5 + self.samples / self.settings.batch_size))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        return loss

    def _step(self, z, noise, steps, ids):
        """Moves all weights; in bfloat16, where that is asked for, it computes what autocast holds safe."""
        noisy = self.scheduler.add_noise(z, noise, steps)
        target = self.scheduler.get_velocity(z, noise, steps)
        half = self.on_gpu or self.settings.half
        with torch.autocast(z.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            states = self.model["text_encoder"](ids).last_hidden_state
            predicted = self.model["unet"](noisy, steps, states).sample
        loss = F.mse_loss(predicted.float(), target)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for weight, _ in self.matrices:
            weight.grad = None
        loss.backward()
        if self.processes > 1:
            self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for weight, matrix in self.matrices:
            matrix.grad = weight.grad.flatten(1)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()

    def _average_gradients(self):
        gradients = [p.grad for p in self.model.parameters()]
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.processes
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _save(self):
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "samples": self.samples,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "seconds": self.seconds,
        }
        replace_file(self.checkpoint, lambda path: torch.save(state, path))

    def _restore(self):
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.samples, self.seconds = state["samples"], state["seconds"]
        for group in self.optimizers[-1].param_groups:  # AdamW's, which may come from a GPU, or go to one
            group["capturable"] = self.on_gpu
            group["lr"] = torch.tensor(self._rate(), device=self.device) if self.on_gpu else self._rate()


def _groups(captions):
    """Indices of the captions by kind (lib.world.kind), and of all."""
    kinds = np.array([kind(caption) for caption in captions])
    return {name: np.flatnonzero(kinds == name) for name in ("mosaic", "single")} | {
        "all": np.arange(len(captions))
    }


def _rows(generator, groups, phase, n):
    """n scenes drawn with replacement, each from the group that the phase's shares draw."""
    shares = [
        phase.mosaics * bool(len(groups["mosaic"])),
        phase.singles * bool(len(groups["single"])),
    ]
    names = generator.choice(("mosaic", "single", "all"), size=n, p=[*shares, 1 - sum(shares)])
    drawn = generator.random(n)
    return np.array([groups[name][int(u * len(groups[name]))] for name, u in zip(names, drawn, strict=True)])


def stages(folder, target, settings, device="cpu", start=None):
    """All stages in order under `folder`, then the export to `target`.

    start: a pipeline folder of the same recipe to train further, its autoencoder as it is.
    Yields the records of each, and keeps them in folder/log.jsonl for `log_of`. Raises PretrainError where
    `folder` was begun with other settings, those in FREE apart, or another start.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(folder, settings, start)
    with (folder / "log.jsonl").open("a") as log:
        for record in _stages(folder, target, settings, device, start):
            print(json.dumps(asdict(record)), file=log, flush=True)
            yield record


def _check_settings(folder, settings, start):
    wanted = {name: value for name, value in plain(settings).items() if name not in FREE}
    wanted["start"] = None if start is None else path_digest(Path(start))
    path = folder / "settings.json"
    if not path.exists() and (folder / "scenes").exists():
        raise PretrainError(f"{folder}: begun with settings that nothing tells: name another folder")
    known = json.loads(path.read_text()) if path.exists() else wanted
    for name, value in wanted.items():
        if known[name] != value:
            begun = f"{name} = {known[name]}"
            raise PretrainError(f"{folder}: begun with {begun}, not {value}: name another folder")
    replace_file(path, lambda part: part.write_text(json.dumps(known)))


def _stages(folder, target, settings, device, start):
    scenes, latents, checkpoint = folder / "scenes", folder / "latents", folder / "autoencoder.pt"
    shards = shard_names(settings)
    missing = [name for name in shards if not (scenes / f"{name}.json").exists()]
    if missing:
        painters = joblib.Parallel(min(len(missing), joblib.cpu_count()))
        painters(joblib.delayed(write_shard)(scenes, name, settings) for name in missing)
    earlier = []
    if start is not None:
        recipe = Path(start) / "recipe.json"
        earlier = json.loads(recipe.read_text()) if recipe.is_file() else []
        start = read_pipeline(Path(start), torch.float32)
        if not checkpoint.exists():
            replace_file(checkpoint, lambda path: torch.save(start.vae.state_dict(), path))
    if not checkpoint.exists():
        yield from train_decoder(settings, scenes, shards, checkpoint, device)
    autoencoder = build_autoencoder(settings).to(device).eval()
    autoencoder.load_state_dict(torch.load(checkpoint, map_location=device, weights_only=True))
    for name in shards:
        encode_shard(autoencoder, scenes, latents, name, device)
    captions = [c for name in shards for c in json.loads((scenes / f"{name}.json").read_text())]
    moments = np.concatenate([np.load(latents / f"{name}.npy") for name in shards])
    tokenizer = start.tokenizer if start else build_tokenizer(folder / "tokenizer")
    trainer = Trainer(settings, tokenizer, folder / "diffusion.pt", device, start)
    yield from trainer.run(moments, captions)
    if trainer.rank == 0:
        parts = tokenizer, autoencoder, trainer.average
        export(target, settings, *parts, log_of(folder), _name_of(device), earlier)


def _name_of(device):
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores" if torch.device(device).type == "cpu" else str(device)


def log_of(folder):
    """The records that `stages` has yielded so far in `folder`, oldest first, as mappings."""
    path = Path(folder) / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Trains the embedded base from scratch.")
    parser.add_argument("folder", type=Path, help="working folder; a second call resumes what is there")
    parser.add_argument("target", type=Path, help="where the diffusers pipeline folder is written")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--samples", type=int, default=PretrainSettings.samples, help="scenes shown to the U-Net"
    )
    parser.add_argument("--scenes", type=int, default=PretrainSettings.scenes, help="distinct scenes painted")
    parser.add_argument("--objects", type=int, default=0, help="single objects painted beside the scenes")
    parser.add_argument("--batch-size", type=int, default=PretrainSettings.batch_size, help="of each process")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default=PretrainSettings.optimizer)
    parser.add_argument("--rate", type=float, default=PretrainSettings.rate, help="at its highest")
    parser.add_argument("--warmup", type=int, default=PretrainSettings.warmup, help="updates")
    parser.add_argument("--decay-share", type=float, default=PretrainSettings.decay_share)
    parser.add_argument("--half", action="store_true", help="bfloat16 on a CPU that has instructions for it")
    parser.add_argument("--seed", type=int, default=PretrainSettings.seed, help="of scenes and training")
    parser.add_argument(
        "--base", type=Path, help="a pipeline folder to train further, in the recipe's last phase"
    )
    parser.add_argument("--fine-attention", action="store_true", help="words reach the finest level, too")
    parser.add_argument("--singles", type=float, default=0.0, help="share of single objects in that phase")
    arguments = parser.parse_args()
    names = {field.name for field in fields(PretrainSettings)} & vars(arguments).keys()
    settings = PretrainSettings(**{name: getattr(arguments, name) for name in names})
    if arguments.base:
        phase = replace(settings.curriculum[-1], samples=settings.samples, singles=arguments.singles)
        settings = replace(settings, curriculum=(phase,))
    try:
        for record in stages(arguments.folder, arguments.target, settings, arguments.device, arguments.base):
            sys.stdout.write(json.dumps(asdict(record)) + "\n")
    except UserError as error:
        sys.exit(f"lib.pretrain: {error}")


if __name__ == "__main__":
    main()
