"""T2Diff to the letter (Wang et al., Unleashing the Potential of Two-Tower Models: Diffusion-Based Cross-Interaction
for Large-Scale Matching, WWW '25, doi 10.1145/3696410.3714829), and the two ablations of its Table 2.

A diffusion module, which learns from L_KL alone, restores the drifts between behaviours, and with the last of them
guesses the next behaviour x̂; mixed attention reads the session with x̂ at its end, and the history in its light. In
training x̂ is what one step of the network makes of the noised *true* drifts; at inference it comes out of the whole
reverse process. What we do otherwise, and why, is in `t2diff`.

Here behaviours are the item tower's vectors; the paper concatenates the embeddings that go into that tower.
"""

import torch
from torch import Tensor

from contracts.config.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder, normal
from trainer.models.diffusion import Schedule, diffuse
from trainer.models.mixed_attention import MixedAttention
from trainer.models.unet import UNet

KL_WEIGHT = 10.0  # λ; of {0.1, 1, 10} the best on validation


class T2DiffPaper(UserEncoder):
    """Diffusion over drifts with its T fresh noises, and mixed attention."""

    drifts = True  # whether the differences between behaviours are diffused, or the behaviours themselves

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.schedule = Schedule(settings.diffusion_steps, settings.diffusion_schedule)
        self.noise_shape = (settings.diffusion_steps, settings.window, settings.dim)
        self.unet = UNet(settings.dim, channels=4 * (settings.dim // 2), steps=settings.diffusion_steps)
        self.attention = MixedAttention(settings)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        return self.attention(sequence, mask, lag, self.guess(sequence, mask, noise))  # type: ignore[no-any-return]

    def training_step(
        self,
        sequence: Tensor,
        mask: Tensor,
        lag: Tensor,
        target: Tensor,
        generator: torch.Generator,
        learn: Tensor | None = None,
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; the extra loss is λ·L_KL. The diffusion module's inputs are detached."""
        del learn
        x, present = sequence.detach(), mask.unsqueeze(-1)
        z_0 = torch.cat((x[:, 1:], target.detach().unsqueeze(1)), 1)
        z_0 = (z_0 - x if self.drifts else z_0) * present  # Eq. 11
        r = torch.randint(1, self.schedule.steps + 1, (len(x),), generator=generator).to(x.device)
        alpha_bar = self.schedule.alpha_bar(r).to(x.dtype)[:, None, None]
        z_r = diffuse(z_0, normal(tuple(x.shape), generator, x), alpha_bar) * present  # Eq. 13–14
        restored = self.unet(z_r, x, mask, r) * present  # Eq. 15
        squares, count = (restored - z_0) ** 2, present.sum().clamp(min=1) * x.shape[2]
        loss, each = squares.sum() / count, squares.sum((1, 2)) * len(x) / count  # Eq. 23, in z_0 form
        user = self.attention(sequence, mask, lag, self._next(restored.detach(), x, mask))
        return TrainingStep(user, KL_WEIGHT * loss, extra_of_each=KL_WEIGHT * each)

    def guess(self, sequence: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """x̂_{n+1} by all T reverse steps (Eq. 16–18); noise (B, T, n, d) is z_T and the ε′ of steps T..2; (B, d)."""
        z = self.trace(sequence, mask, noise)[-1]
        return self._next(z, sequence, mask)

    def trace(self, sequence: Tensor, mask: Tensor, noise: Tensor) -> list[Tensor]:
        """ẑ_0 as the network sees it at each of the T steps, T first; each (B, n, d)."""
        present, seen = mask.unsqueeze(-1), []
        z = noise[:, 0, -sequence.shape[1] :] * present
        for i, r in enumerate(range(self.schedule.steps, 0, -1)):
            z_0 = self.unet(z, sequence, mask, torch.tensor([r], device=z.device)) * present
            seen.append(z_0)
            fresh = noise[:, i + 1, -sequence.shape[1] :] if r > 1 else torch.zeros_like(z)
            z = self.schedule.posterior_step(z, z_0, fresh, r) * present
        return seen

    def _next(self, z_0: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Zeros where the history is empty: a drift needs a behaviour to start from."""
        return ((z_0 + x if self.drifts else z_0) * mask.unsqueeze(-1))[:, -1]


class WithoutDrifts(T2DiffPaper):
    """Ablation: the behaviours themselves are diffused, one place ahead."""

    drifts = False


class MixedAttentionOnly(UserEncoder):
    """Ablation: no diffusion, no x̂."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.attention = MixedAttention(settings)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        del noise
        return self.attention(sequence, mask, lag, None)  # type: ignore[no-any-return]
