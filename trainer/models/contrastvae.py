"""ContrastVAE (Wang et al., ContrastVAE: Contrastive Variational AutoEncoder for Sequential Recommendation, CIKM 2022).

A latent Gaussian at every place, of which the next item is read. Two views of a sequence, each with its own dropout and
its own draw from the posterior, are trained on the ContrastELBO: both are to rebuild what comes next and to stay near
the prior, and the views of one user are to resemble each other more than those of others (InfoNCE).

Where we leave the paper: mean and variance share one encoder; the views' variational dropout has no learnt rate; the KL
term has a constant weight instead of one that rises over the first steps, since an online learner has no first steps
worth the name; the loss is the shared softmax, averaged over both views, hence half of the ContrastELBO.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder, masked_mean, normal
from trainer.models.layers import NEVER, Transformer, heads_for
from trainer.models.places import at_the_end, next_places

DEPTH = 1  # of the encoder, and of the decoder
KL_WEIGHT = 0.01  # at the 0.3 that theirs may rise to, the latent forgets a mere Markov chain of 40 items
CONTRAST_WEIGHT = 0.3
TEMPERATURE = 0.5


class ContrastVAE(UserEncoder):
    """The decoded posterior mean at the last behaviour is the user; noise is for training only."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self.encoder, self.decoder = (
            Transformer(d, settings.window, depth=DEPTH, heads=heads_for(d), dropout=settings.dropout, causal=True)
            for _ in range(2)
        )
        self.posterior = nn.Linear(d, 2 * d)  # mean and log variance

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`; z is its mean."""
        del lag, noise
        mean, _ = self._encode(sequence, mask)
        return self.decoder(mean, mask)[:, -1]  # type: ignore[no-any-return]

    def training_step(
        self,
        sequence: Tensor,
        mask: Tensor,
        lag: Tensor,
        target: Tensor,
        generator: torch.Generator,
        learn: Tensor | None = None,
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; the extra loss is that of the KL term and of the contrast."""
        del lag, target
        masks = torch.cat((mask, mask))
        mean, log_variance = self._encode(torch.cat((sequence, sequence)), masks)
        z = mean + torch.exp(0.5 * log_variance) * normal(tuple(mean.shape), generator, mean)
        kl = masked_mean(divergence(mean, log_variance).flatten()[None, :, None], masks.flatten()[None]).squeeze()
        has_history = mask.sum(1) > 0  # users without a behaviour are all alike, and nothing is to tell them apart
        one, other = masked_mean(z, masks).chunk(2)
        extra = KL_WEIGHT * kl + 0.5 * CONTRAST_WEIGHT * contrast(one[has_history], other[has_history])
        at, places = next_places(at_the_end(mask) if learn is None else learn)
        states = self.decoder(z, masks).flatten(0, 1)[torch.cat((at, at + mask.numel()))]
        return TrainingStep(states, extra, torch.cat((places, places)))

    def _encode(self, sequence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.posterior(self.encoder(sequence, mask)).chunk(2, dim=-1)
        return mean, log_variance


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, exp(log_variance)) from the standard normal, summed over the last axis; in nats.

    >>> divergence(torch.tensor([1.0, 0.0]), torch.zeros(2)).item()
    0.5
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


def contrast(one: Tensor, other: Tensor) -> Tensor:
    """InfoNCE by cosines: each view (U, d) is to find its counterpart among all the 2U − 1 others; (), 0 without users.

    >>> round(contrast(torch.eye(2), torch.eye(2)).item(), 4)  # −log(e² / (e² + 2))
    0.2395
    """
    views = functional.normalize(torch.cat((one, other)), dim=1)
    rows = torch.arange(len(views), device=views.device)
    scores = views @ views.T / TEMPERATURE + NEVER * torch.eye(len(views), device=views.device)
    return functional.cross_entropy(scores, rows.roll(len(one)), reduction="sum") / max(len(views), 1)
