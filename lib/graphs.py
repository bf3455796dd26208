"""CUDA graphs: what an update starts on a GPU, hundreds of kernels, recorded once and replayed as one.

At a batch of a few images a GPU waits for the kernels to be started one by one; a graph starts them together.
"""

from functools import partial

import torch

from lib.denoising import denoising_loss


def loss_of(base):
    """`lib.denoising.denoising_loss` of a base, as called with latents, noise, times and states.

    On CUDA forward and backward pass are recorded at the first call of each shape, and replayed: the
    gradient flows to the states alone, and the losses hold until the next call.
    """
    plain, recorded = partial(denoising_loss, base), {}
    if base.device.type != "cuda":
        return plain

    def replayed(latents, noise, times, states):
        key = latents.shape, states.shape
        if key not in recorded:
            samples = [part.detach().clone() for part in (latents, noise, times, states)]
            samples[-1].requires_grad_()
            recorded[key] = torch.cuda.make_graphed_callables(plain, tuple(samples))
        return recorded[key](latents, noise, times, states)

    return replayed
