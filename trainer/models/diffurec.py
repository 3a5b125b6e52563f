"""DiffuRec (Li, Sun and Li, DiffuRec: A Diffusion Model for Sequential Recommendation, ACM TOIS 2023).

The next item's vector is noised and rebuilt from the sequence, each of whose vectors is told the noised one, scaled by
an uncertain λ. The user is the vector that the reverse process ends in.

Where we leave the paper: two transformer blocks, with places, blind to padding as in the other models here, instead
of four; steps are drawn evenly, not by their loss; the reverse process is deterministic and leaves steps out.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder, normal
from trainer.models.diffusion import alpha_bars, diffuse
from trainer.models.layers import Transformer, drop, heads_for
from trainer.models.unet import sinusoids

DEPTH = 2
STEPS = 32  # T
UNCERTAINTY = 0.001  # λ is drawn from N(UNCERTAINTY, UNCERTAINTY²); at inference it is its mean
# The steps at which inference asks the approximator, each of which puts a whole transformer into the served graph. λ is
# so small that x̂_0 hardly depends on x_r: on a trained model, what two steps end in is within 4 % of what all 32 do.
ASKED = (STEPS, STEPS // 2)


def truncated_linear(steps: int = STEPS) -> Tensor:
    """The truncated linear schedule β_1..β_T of the paper; (T,), float64.

    It is Ho et al.'s line from 10⁻⁴ to 0.02 over 1000 steps, shrunk to T of them and lifted by 0.01.

    >>> [round(float(b), 4) for b in truncated_linear()[[0, 31]]]
    [0.0131, 0.635]
    """
    scale = 1000 / steps
    return torch.linspace(scale * 1e-4 + 0.01, scale * 0.02 + 0.01, steps, dtype=torch.float64)


class DiffuRec(UserEncoder):
    """The user is x̂_0, the next item's vector as the reverse process finds it."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self.noise_shape = (d,)
        self._dropout = settings.dropout
        self.register_buffer("_alpha_bars", alpha_bars(truncated_linear()).float(), persistent=False)
        self._alpha_bars: Tensor
        width = d + d % 2  # sines and cosines come in pairs
        self.register_buffer("_sinusoids", sinusoids(STEPS + 1, width), persistent=False)
        self._sinusoids: Tensor
        self.step_hidden = nn.Linear(width, 4 * d)
        self.step = nn.Linear(4 * d, d)
        self.norm = nn.LayerNorm(d)
        self.body = Transformer(d, settings.window, depth=DEPTH, heads=heads_for(d), dropout=settings.dropout)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`; x_T is the noise (B, d)."""
        del lag
        x = noise
        for r, after in zip(ASKED, (*ASKED[1:], 0), strict=True):
            x_0 = self._approximate(sequence, mask, x, torch.tensor([r], device=x.device), UNCERTAINTY)
            # The noise that x holds is kept instead of drawn anew (DDIM, η = 0; Song et al., ICLR 2021).
            bar, bar_after = self._alpha_bars[r], self._alpha_bars[after]
            x = diffuse(x_0, (x - bar.sqrt() * x_0) / (1 - bar).sqrt(), bar_after)
        return x

    def training_step(
        self,
        sequence: Tensor,
        mask: Tensor,
        lag: Tensor,
        target: Tensor,
        generator: torch.Generator,
        learn: Tensor | None = None,
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; the loss is the cross-entropy of x̂_0 with the items."""
        del lag, learn
        r = torch.randint(1, STEPS + 1, (len(target),), generator=generator).to(target.device)
        noise = normal(tuple(target.shape), generator, target)
        x_r = diffuse(target, noise, self._alpha_bars[r].unsqueeze(1))
        uncertainty = UNCERTAINTY * (1 + normal(tuple(sequence.shape), generator, sequence))
        x_0 = self._approximate(sequence, mask, x_r, r, uncertainty)
        return TrainingStep(x_0, sequence.new_zeros(()))

    def _approximate(self, sequence: Tensor, mask: Tensor, x: Tensor, r: Tensor, uncertainty: Tensor | float) -> Tensor:
        """x̂_0 = f(z, r)[−1] with z_i = e_i + λ_i (x_r + step embedding); x (B, d), r (B,) or (1,)."""
        step = self.step(functional.silu(self.step_hidden(self._sinusoids[r])))
        items = self.norm(drop(sequence, self._dropout, training=self.training))
        return self.body(items + uncertainty * (x + step).unsqueeze(1), mask)[:, -1]  # type: ignore[no-any-return]
