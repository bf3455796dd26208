"""CUDA graphs: the hundreds of kernels of a U-Net's pass, recorded once and replayed as one.

At a batch of a few images a GPU waits for the kernels to be started one by one; a graph starts them together.
"""

import gc
from contextlib import contextmanager
from functools import partial

import torch

from lib.denoising import denoising_loss


class Recorded:
    """A function of tensors, which on CUDA runs as it is `first` times, then is recorded and replayed.

    In the first calls of a shape libraries choose their algorithms. All else that the function reads must
    stay where it is; it is given at each call, so that the graphs' memory goes when this object does.
    """

    def __init__(self, first: int = 1):
        self._first, self._calls, self._graphs = first, {}, {}

    def __call__(self, function, *inputs):
        """What function(*inputs) is, in memory of its own."""
        if inputs[0].device.type != "cuda":
            return function(*inputs)
        shapes = tuple(part.shape for part in inputs)
        self._calls[shapes] = self._calls.get(shapes, 0) + 1
        with torch.cuda.device(inputs[0].device):
            if self._calls[shapes] <= self._first:
                return self._beside(function, inputs)
            if shapes not in self._graphs:
                kept, graph = [part.clone() for part in inputs], torch.cuda.CUDAGraph()
                with _collected(), torch.cuda.graph(graph):
                    found = function(*kept)
                self._graphs[shapes] = kept, graph, found
            kept, graph, found = self._graphs[shapes]
            for old, new in zip(kept, inputs, strict=True):
                old.copy_(new)
            graph.replay()
            return found.clone()

    def _beside(self, function, inputs):
        """On a stream of its own: what autograd keeps of the default one would spoil the recording."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return found


@contextmanager
def _collected():
    """Collects garbage before and none inside: an old graph that goes meanwhile would spoil the new one."""
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def loss_of(base):
    """`lib.denoising.denoising_loss` of a base, as called with latents, noise, times and states.

    On CUDA the U-Net's forward and backward pass are recorded at the first call of each shape, and replayed:
    the gradient flows to the states alone; losses hold, and can be gone back through, until the next call.
    """
    plain, recorded = partial(denoising_loss, base), {}
    if base.device.type != "cuda":
        return plain

    def replayed(latents, noise, times, states):
        key = latents.shape, states.shape
        with torch.cuda.device(base.device):
            if key not in recorded:
                samples = [part.detach().clone() for part in (latents, noise, times, states)]
                samples[-1].requires_grad_()
                with _collected():  # of a training that is over: what torch makes here refers to itself
                    recorded[key] = torch.cuda.make_graphed_callables(plain, tuple(samples))
            return recorded[key](latents, noise, times, states)

    return replayed
