"""One file a model, one small interface (`base`), and here the names they go by."""

from collections.abc import Callable

import torch

from contracts.config.settings import ModelSettings
from contracts.config.trainer import ONE_VECTOR
from trainer.models.base import UserEncoder
from trainer.models.bert4rec import BERT4Rec
from trainer.models.caser import Caser
from trainer.models.contrastvae import ContrastVAE
from trainer.models.dat import DAT
from trainer.models.diffurec import DiffuRec
from trainer.models.gru4rec import GRU4Rec
from trainer.models.mamba4rec import Mamba4Rec
from trainer.models.sasrec import SASRec
from trainer.models.stosa import STOSA
from trainer.models.t2diff import T2Diff
from trainer.models.t2diff_paper import MixedAttentionOnly, T2DiffPaper, WithoutDrifts
from trainer.models.two_tower import TwoTower

# Settings and experiments name these; `ModelName` in contracts.config.experiment lists them, and a test ties the two.
REGISTRY: dict[str, Callable[[ModelSettings], UserEncoder]] = {
    "bert4rec": BERT4Rec,
    "caser": Caser,
    "contrastvae": ContrastVAE,
    "dat": DAT,
    "diffurec": DiffuRec,
    "gru4rec": GRU4Rec,
    "mamba4rec": Mamba4Rec,
    "mixed-attention": MixedAttentionOnly,
    "sasrec": SASRec,
    "stosa": STOSA,
    "t2diff": T2Diff,
    "t2diff-paper": T2DiffPaper,
    "t2diff-without-drifts": WithoutDrifts,
    "two_tower": TwoTower,
}


def create(name: str, settings: ModelSettings, seed: int) -> UserEncoder:
    """A new user encoder on the CPU whose initial weights are a function of the seed.

    Raises:
        ValueError: there is no model of that name, or it cannot learn where the settings say.

    """
    if name not in REGISTRY:
        raise ValueError(f"There is no model '{name}'; there are {', '.join(sorted(REGISTRY))}.")
    if name in ONE_VECTOR and settings.learn_at != "last":
        raise ValueError(f"{name} makes one vector of a window, so learn_at: {settings.learn_at} does not go with it.")
    # torch's layers initialise themselves from the global generator; fork it so that nobody else notices.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return REGISTRY[name](settings)
