"""T2Diff (Wang et al., WWW '25, doi 10.1145/3696410.3714829), restated in docs/model.md.

A diffusion module guesses the next behaviour x̂ from the drifts between behaviours; mixed attention reads the session
with x̂ at its end, and the history in its light.

Where we leave the paper: x̂ is trained as inference makes it (from pure noise, in few deterministic steps), not from
the noised true target; the last drift, the only one that the condition does not already hold, weighs as much as all
others together; drifts are measured in units of the vectors' own running scale, since unit noise means nothing beside
embeddings whose size changes as they are learnt.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder, masked_mean, normal
from trainer.models.diffusion import STEPS, alpha_bars, betas, diffuse, ladder, reverse_step
from trainer.models.unet import UNet

DRIFTS = 16  # only so many last drifts are diffused: x̂ is read off the last one, and the U-Net sees 9 positions back
EVALUATIONS = 4  # network evaluations of one sampling
KL_WEIGHT = 0.1  # λ
LAST_DRIFT_WEIGHT = 0.5  # of L_KL; the rest is spread over all drifts
SCALE_MEMORY = 0.95  # of the running scale, per step
LAG_SCALE = 0.1
NEVER = -1e9  # the attention score of padding; finite, so that a row of nothing but padding stays finite


class DriftDiffusion(nn.Module):
    """Guesses the next item vector from the drifts between those before."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.unet = UNet(dim, channels, STEPS)
        self._alpha_bars = [float(a) for a in alpha_bars(betas())]
        self.register_buffer("scale", torch.tensor(0.1))
        self.scale: Tensor

    def sample(self, x: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """x̂_{n+1} = (ẑ_0 + X)[−1] from z_T = noise (B, n, d), in few deterministic steps (Eq. 16–18); (B, d).

        Zeros where the history is empty: a drift needs a behaviour to start from.
        """
        present = mask.unsqueeze(-1)
        x = x / self.scale
        z = noise * present
        asked = ladder(STEPS, EVALUATIONS)
        for r, after in zip(asked, [*asked[1:], 0], strict=True):
            z_0 = self.unet(z, x, mask, torch.tensor([r], device=x.device)) * present
            z = reverse_step(z, z_0, self._alpha_bars[r], self._alpha_bars[after])
        return self.scale * ((z + x) * present)[:, -1]

    def loss(self, x: Tensor, target: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """L_KL = ‖ẑ_0 − z_0‖² (Eq. 23 in z_0 form), per dimension; half of it on the last drift. ()."""
        self._measure(x, mask)
        present = mask.unsqueeze(-1)
        x, target = x / self.scale, target / self.scale
        z_0 = (torch.cat((x[:, 1:], target.unsqueeze(1)), 1) - x) * present  # Eq. 11
        r = torch.randint(1, STEPS + 1, (len(x),), generator=generator).to(x.device)
        alpha_bar = torch.tensor(self._alpha_bars, device=x.device, dtype=x.dtype)[r]
        z_r = diffuse(z_0, normal(tuple(x.shape), generator, x), alpha_bar[:, None, None]) * present  # Eq. 13–14
        error = ((self.unet(z_r, x, mask, r) - z_0) ** 2).mean(2)
        last = masked_mean(error[:, -1:].unsqueeze(-1), mask[:, -1:])
        every = masked_mean(error.unsqueeze(-1), mask)
        return (LAST_DRIFT_WEIGHT * last + (1 - LAST_DRIFT_WEIGHT) * every).mean()

    def _measure(self, x: Tensor, mask: Tensor) -> None:
        """Let the running scale follow the root mean square of the behaviours' vectors."""
        power = (x**2).mean(2)
        count = mask.sum()
        now = ((power * mask).sum() / count.clamp(min=1)).sqrt()
        usable = (count > 0) & torch.isfinite(now) & (now > 0)
        self.scale.copy_(torch.where(usable, torch.lerp(now, self.scale, SCALE_MEMORY), self.scale))


class SessionEncoder(nn.Module):
    """h_s = mean(Transformer(concat[X_session, x̂_{n+1}]))  (Eq. 19): one pre-norm layer."""

    def __init__(self, dim: int, session: int, heads: int) -> None:
        super().__init__()
        self._session, self._heads = session, heads
        self.places = nn.Parameter(0.02 * torch.randn(session + 1, dim))
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.mix = nn.Linear(dim, dim)
        self.norm_hidden = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, mask: Tensor, guess: Tensor) -> Tensor:
        """Behaviours (B, n, d), mask (B, n) and x̂ (B, d) to h_s (B, d)."""
        k = min(self._session, x.shape[1])
        tokens = torch.cat((x[:, -k:], guess.unsqueeze(1)), 1)
        present = functional.pad(mask[:, -k:], (0, 1), value=1.0)  # x̂ is always there, so attention never runs dry
        h = tokens + self.places[-(k + 1) :]
        h = h + self._attend(self.norm_attention(h), present)
        h = h + self.out(functional.gelu(self.hidden(self.norm_hidden(h))))
        return masked_mean(h, present)

    def _attend(self, h: Tensor, present: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        scores = scores + (NEVER * (1 - present))[:, None, None, :]
        out: Tensor = self.mix((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return out


class T2Diff(UserEncoder):
    """Diffusion module and mixed attention."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self.noise_shape = (min(settings.window, DRIFTS), d)
        self.diffusion = DriftDiffusion(d, channels=64)
        self.session = SessionEncoder(d, min(settings.session_length, settings.window), heads=2 if d % 2 == 0 else 1)
        self.score_hidden = nn.Linear(4 * d + 1, d)
        self.score = nn.Linear(d, 1)
        self.hidden = nn.Linear(2 * d, 2 * d)
        self.out = nn.Linear(2 * d, d)
        self.skip = nn.Linear(2 * d, d)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        guess = self.diffusion.sample(sequence[:, -DRIFTS:], mask[:, -DRIFTS:], noise)
        return self._mixed_attention(sequence, mask, lag, guess)

    def training_step(
        self, sequence: Tensor, mask: Tensor, lag: Tensor, target: Tensor, generator: torch.Generator
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; the extra loss is λ·L_KL. The diffusion module's inputs are detached."""
        x, present = sequence.detach()[:, -DRIFTS:], mask[:, -DRIFTS:]
        loss = self.diffusion.loss(x, target.detach(), present, generator)
        with torch.no_grad():
            guess = self.diffusion.sample(x, present, normal(tuple(x.shape), generator, x))
        return TrainingStep(self._mixed_attention(sequence, mask, lag, guess), KL_WEIGHT * loss)

    def _mixed_attention(self, x: Tensor, mask: Tensor, lag: Tensor, guess: Tensor) -> Tensor:
        h_s = self.session(x, mask, guess)  # Eq. 19
        beside = h_s.unsqueeze(1).expand_as(x)
        pairs = torch.cat((x, x - beside, x * beside, beside, LAG_SCALE * lag.unsqueeze(-1)), 2)
        scores = self.score(functional.gelu(self.score_hidden(pairs))).squeeze(-1)  # Eq. 20
        weights = (scores + NEVER * (1 - mask)).softmax(1) * mask
        h_l = (weights.unsqueeze(-1) * x).sum(1)  # Eq. 21
        both = torch.cat((h_l, h_s), 1)
        user: Tensor = self.out(functional.gelu(self.hidden(both))) + self.skip(both)  # Eq. 22
        return user
