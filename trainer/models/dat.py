"""DAT+: two towers, each with a vector that mimics the other's output, and behaviours among the features.

Yu et al., A Dual Augmented Two-tower Model for Online Large-scale Recommendation, DLP-KDD 2021.

Each side has an augmented vector that it reads beside its features and that is taught to mimic what the other side's
tower says of its positives: a_u → p_v, a_v → p_u (adaptive-mimic mechanism). So each tower has seen something of the
other before they meet in the inner product. Table 2 of the T2Diff paper calls it DAT+ where behaviours are features.

Where we leave the paper:

- There are no user ids, because the users we are asked about are new to the model: the user's features are the means
  of the behaviours and of the session, and a_u is a learnt function of them in place of a row of a table. The mimic
  loss teaches that function alone: it does not move the behaviours' items, since items are what a_u imitates.
- An item's vector has two parts (e¹, e²). e² is the item's own row behind a_v = A e², and the item tower is
  p_v = (e¹ + M ReLU(a_v), e²): an additive coupling (Dinh et al., NICE, ICLR 2015 workshop). It can be undone, so that
  the user tower reads items before their tower, as in the paper, though it is handed finished vectors.
- Towers do not end in unit vectors, since a softmax over the whole catalogue (in place of binary cross-entropy with
  sampled negatives) needs lengths; what is mimicked is the direction, which in the paper is all there is.
- The mimic losses are means over positives; in the paper they are zero for negatives.
- The category-alignment loss is left out: it draws the covariances of minor categories to that of the one category with
  most of the traffic, and asks that each item is of one category; ours are of several, or of none.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder, masked_mean
from trainer.models.places import followers, means_by_then, next_places, there_by_then

MIMIC_WEIGHT = 0.5  # λ of each side's mimic loss


class DAT(UserEncoder):
    """Pooled behaviours and the augmented vector, through one hidden layer, are the user."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self._split, self._session = d // 2, settings.session_length
        self.item_augment = nn.Linear(d - self._split, d)
        self.item_mix = nn.Linear(d, self._split)
        self.user_augment_hidden = nn.Linear(2 * d, 2 * d)
        self.user_augment = nn.Linear(2 * d, d)
        self.hidden = nn.Linear(3 * d, 2 * d)
        self.out = nn.Linear(2 * d, d)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        del lag, noise
        return self._tower(self._features(sequence, mask))

    def training_step(
        self,
        sequence: Tensor,
        mask: Tensor,
        lag: Tensor,
        target: Tensor,
        generator: torch.Generator,
        learn: Tensor | None = None,
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; the extra loss is λ (L_u + L_v) of the adaptive-mimic mechanism."""
        del lag, generator
        places = None
        if learn is None:
            features = self._features(sequence, mask)
        else:
            at, places = next_places(learn)
            features = self._features_by_then(sequence, mask).flatten(0, 1)[at]
            target = followers(sequence, target, places)
        user = self._tower(features)
        losses_u = _mimic(self._user_augmented(features.detach()), target)
        losses_v = _mimic(self._item_augmented(target), user)
        loss = MIMIC_WEIGHT * (losses_u.mean() + losses_v.mean())
        return TrainingStep(user, loss, places, MIMIC_WEIGHT * (losses_u + losses_v))

    def shape_items(self, vectors: Tensor) -> Tensor:
        """The item tower p_v, (N, d) to (N, d)."""
        return torch.cat((vectors[:, : self._split] + self._shift(vectors), vectors[:, self._split :]), 1)

    def _features(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Means of the behaviours and of the session's, before the item tower, (B, 2 d); zeros where there is none."""
        x, k = self._before_the_tower(sequence), self._session
        return torch.cat((masked_mean(x, mask), masked_mean(x[:, -k:], mask[:, -k:])), 1)

    def _features_by_then(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """`_features` of the history up to each place, (B, n, 2 d)."""
        x = self._before_the_tower(sequence)
        means = (means_by_then(x, there_by_then(mask, last)) for last in (None, self._session))
        return torch.cat((*means,), 2)

    def _before_the_tower(self, sequence: Tensor) -> Tensor:
        ahead, own = sequence[..., : self._split], sequence[..., self._split :]
        return torch.cat((ahead - self._shift(sequence), own), -1)

    def _tower(self, features: Tensor) -> Tensor:
        both = torch.cat((features, self._user_augmented(features)), 1)
        user: Tensor = self.out(functional.relu(self.hidden(both)))
        return user

    def _user_augmented(self, features: Tensor) -> Tensor:
        a_u: Tensor = self.user_augment(functional.relu(self.user_augment_hidden(features)))
        return a_u

    def _item_augmented(self, vectors: Tensor) -> Tensor:
        """a_v (..., d) of vectors (..., d), be it before their tower or behind."""
        a_v: Tensor = self.item_augment(vectors[..., self._split :])
        return a_v

    def _shift(self, vectors: Tensor) -> Tensor:
        shift: Tensor = self.item_mix(functional.relu(self._item_augmented(vectors)))
        return shift


def _mimic(augmented: Tensor, other: Tensor) -> Tensor:
    """Squared distance to the direction of the other tower's vector, which stays as it is; (B,)."""
    return ((augmented - functional.normalize(other.detach())) ** 2).sum(1)
