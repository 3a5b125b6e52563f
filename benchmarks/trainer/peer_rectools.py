"""RecTools' side of `benchmarks.trainer.peer`, which has the readings; only the peer's interpreter can import this."""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning
import rectools
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

from benchmarks.trainer.windows import Shape, Stopwatch, windows

MANY = 1000  # epochs: it is the clock that ends a round
COLLATED = 8  # batches beforehand, for `step`


class Timer(pytorch_lightning.Callback):
    """Ends the training when the watch says so."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_batch_end(self, trainer: pytorch_lightning.Trainer, *_: object) -> None:
        """After the optimizer's step."""
        trainer.should_stop = self.watch.enough()


class Rounds:
    """The peer's models, by loss, and its two ways to learn."""

    def __init__(self, shape: Shape, watch: Callable[[], Stopwatch], device: torch.device) -> None:
        self._shape = shape
        self._watch = watch
        self._device = device
        rows = windows(shape)
        users, places = np.divmod(np.arange(rows.size), shape.window + 1)
        times = pd.to_datetime(places, unit="s")
        columns = {Columns.User: users, Columns.Item: rows.ravel(), Columns.Weight: 1.0, Columns.Datetime: times}
        self._dataset = Dataset.construct(pd.DataFrame(columns))
        self._fitted: dict[str, SASRecModel] = {}

    def fit(self, loss: str) -> Stopwatch:
        """`SASRecModel.fit`."""
        shape = self._shape
        model = SASRecModel(
            n_blocks=shape.depth, n_heads=shape.heads, n_factors=shape.dim, dropout_rate=0.0, loss=loss,
            session_max_len=shape.window, batch_size=shape.batch, get_trainer_func=self._trainer,
        )  # fmt: skip
        model.fit(self._dataset)
        self._fitted[loss] = model
        (timer,) = (one for one in model.fit_trainer.callbacks if isinstance(one, Timer))
        return timer.watch

    def step(self, loss: str) -> Stopwatch:
        """Bare steps on batches at hand, with the model of the last `fit`."""
        if loss not in self._fitted:
            self.fit(loss)
        fitted = self._fitted[loss]
        module = fitted.lightning_model.to(self._device).train()
        loaded = zip(range(COLLATED), fitted.data_preparator.get_dataloader_train(), strict=False)
        batches = [{name: part.to(self._device) for name, part in batch.items()} for _, batch in loaded]
        optimizer = module.configure_optimizers()
        watch = self._watch()
        while True:
            batch = batches[(watch.seen + 1) % len(batches)]
            batch_loss = module.loss_calculator(module.get_batch_logits(batch), batch["y"], batch["yw"])
            optimizer.zero_grad(set_to_none=True)
            batch_loss.backward()
            optimizer.step()
            if watch.enough():
                return watch

    def _trainer(self) -> pytorch_lightning.Trainer:
        """As RecTools makes its own, but for the device and the watch, which ends it."""
        return pytorch_lightning.Trainer(
            max_epochs=MANY, enable_progress_bar=False, enable_model_summary=False, logger=False, devices=1,
            enable_checkpointing=False, accelerator="gpu" if self._device.type == "cuda" else "cpu",
            callbacks=[Timer(self._watch())],
        )  # fmt: skip


def tell(what: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answer rounds until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=json.loads, default={})
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    on_gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    shape = Shape(**options.shape)
    rounds = Rounds(
        shape, lambda: Stopwatch(options.seconds, options.batches, wait), torch.device("cuda" if on_gpu else "cpu")
    )
    ways: dict[str, Any] = {"fit": rounds.fit, "step": rounds.step}
    tell({module.__name__: module.__version__ for module in (rectools, pytorch_lightning, torch, np)})
    for line in sys.stdin:
        wanted = json.loads(line)
        tell(ways[wanted["way"]](wanted["loss"]).figures(shape))


if __name__ == "__main__":
    main()
