"""What a training step costs on this machine, by the ways to speed it up: `python -m benchmarks.trainer.models`.

Prints one JSON object of milliseconds (median of the rounds, the variants of a group taking turns), and the device.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.learn.full_softmax import catalogue_loss
from trainer.models.t2diff import T2Diff

ITEMS, DIM, WINDOW, BATCH = 3706, 64, 50, 128
PLACES = BATCH * WINDOW

Once = Callable[[], object]


def softmax() -> dict[str, Once]:
    """The loss over the catalogue and its gradient."""
    users = torch.randn(PLACES, DIM, requires_grad=True)
    vectors = torch.randn(ITEMS, DIM, requires_grad=True)
    targets = torch.randint(ITEMS, (PLACES,))

    def of(loss: Callable[[], torch.Tensor]) -> Once:
        return lambda: torch.autograd.grad(loss(), (users, vectors))

    return {
        "softmax_torch": of(lambda: functional.cross_entropy(users @ vectors.T, targets)),
        "softmax_float32": of(lambda: catalogue_loss(users, vectors, targets, torch.float32)),
        "softmax_bfloat16": of(lambda: catalogue_loss(users, vectors, targets, torch.bfloat16)),
    }


def encoder() -> dict[str, Once]:
    """The user encoder of T2Diff at every place of its windows, and its gradient; without the softmax."""
    settings = ModelSettings(dim=DIM, window=WINDOW, learn_at="every")
    model = T2Diff(settings)
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(BATCH, WINDOW, DIM), torch.randn(BATCH, DIM)
    mask, lag = torch.ones(BATCH, WINDOW), torch.rand(BATCH, WINDOW)

    def step(forward: Callable[..., torch.Tensor]) -> Once:
        def once() -> None:
            loss = forward(x, mask).square().mean()
            torch.autograd.grad(loss, list(model.body.parameters()))

        return once

    def whole(*, autocast: bool) -> Once:
        def once() -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                trained = model.training_step(x, mask, lag, target, generator, mask > 0)
            torch.autograd.backward(trained.user.float().square().mean() + trained.extra_loss.float())

        return once

    return {
        "encoder": whole(autocast=False),
        "encoder_bfloat16": whole(autocast=True),
        "transformer": step(model.body),
        "transformer_compiled": step(torch.compile(model.body)),
    }


def measure(variants: dict[str, Once], rounds: int) -> dict[str, float]:
    """Milliseconds of each, after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for count in range(rounds + 1):
        for name, once in variants.items():
            begun = time.perf_counter()
            once()
            if count:
                taken[name].append(1000 * (time.perf_counter() - begun))
    return {name: round(median(times), 2) for name, times in taken.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer.models", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    milliseconds = measure(softmax(), options.rounds) | measure(encoder(), options.rounds)
    shape = {"places": PLACES, "items": ITEMS, "dim": DIM, "window": WINDOW, "threads": options.threads}
    print(json.dumps({"ms": milliseconds, "shape": shape, "torch": torch.__version__}, indent=2))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
