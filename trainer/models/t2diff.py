"""T2Diff, ours: the drift to the next behaviour is diffused, read beside the history, and learned at every place.

After Wang et al., WWW '25 (doi 10.1145/3696410.3714829); `t2diff_paper` is their model to the letter. Where we leave
it, and why, is in docs/model.md with what each departure measured.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder, normal
from trainer.models.diffusion import Schedule, diffuse
from trainer.models.layers import Transformer, heads_for, next_places
from trainer.models.unet import sinusoids

DEPTH = 2
EVALUATIONS = 4  # network evaluations of one sampling
KL_WEIGHT = 0.1  # λ
SCALE_MEMORY = 0.99  # of the running scale, per step
BUCKETS_PER_E = 2.0
BUCKETS = 44


class Denoiser(nn.Module):
    """ẑ_0 = net([z_r, state], step)  (Eq. 15), at each place for itself: the state has read what came before."""

    def __init__(self, dim: int, steps: int) -> None:
        super().__init__()
        self.register_buffer("_sinusoids", sinusoids(steps + 1, 32), persistent=False)
        self._sinusoids: Tensor
        self.step = nn.Linear(32, 2 * dim)
        self.enter = nn.Linear(2 * dim, 2 * dim)
        self.leave = nn.Linear(2 * dim, dim)

    def forward(self, z: Tensor, state: Tensor, step: Tensor) -> Tensor:
        """(M, d), (M, d) and (M,) or (1,) to (M, d)."""
        h = self.enter(torch.cat((z, state), 1)) + self.step(self._sinusoids[step])
        out: Tensor = self.leave(functional.silu(h))
        return out


class T2Diff(UserEncoder):
    """Causal attention over behaviours and waits, drift diffusion on its states, x̂ beside them."""

    use_guess = True
    end_to_end = False

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self._dropout = settings.dropout
        self.noise_shape = (d,)
        self.schedule = Schedule(settings.diffusion_steps, settings.diffusion_schedule)
        self.waits = nn.Embedding(BUCKETS, d)
        nn.init.normal_(self.waits.weight, std=0.02)
        self.body = Transformer(
            d, settings.window, depth=DEPTH, heads=heads_for(d), dropout=settings.dropout, causal=True
        )
        if self.use_guess:
            self.denoiser = Denoiser(d, settings.diffusion_steps)
            self.read = nn.Linear(d, d, bias=False)
        self.register_buffer("scale", torch.tensor(0.1))
        self.scale: Tensor

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        states = self._states(sequence, mask, lag)[:, -1]
        return self._user(states, sequence[:, -1], noise)

    def training_step(
        self, sequence: Tensor, mask: Tensor, lag: Tensor, target: Tensor, generator: torch.Generator
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; the extra loss is λ·L_KL."""
        states = self._states(sequence, mask, lag).flatten(0, 1)
        at, places = next_places(mask)
        state, x = states[at], sequence.flatten(0, 1)[at]
        if not self.use_guess:
            return TrainingStep(state, state.new_zeros(()), places)
        follows = torch.cat((sequence, target.unsqueeze(1)), 1).flatten(0, 1)[places]
        self._measure(x.detach())
        z_0 = (follows - x).detach() / self.scale
        r = torch.randint(1, self.schedule.steps + 1, (len(x),), generator=generator).to(x.device)
        bar = self.schedule.alpha_bar(r).to(x.dtype)[:, None]
        z_r = diffuse(z_0, normal(tuple(x.shape), generator, x), bar)
        loss = ((self.denoiser(z_r, state, r) - z_0) ** 2).mean()
        user = self._user(state, x, normal(tuple(x.shape), generator, x))
        return TrainingStep(user, KL_WEIGHT * loss, places)

    def _user(self, state: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        if not self.use_guess:
            return state
        z = noise
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.end_to_end):
            for r, after in self.schedule.ladder(EVALUATIONS):
                z_0 = self.denoiser(z, state, torch.tensor([r], device=z.device))
                z = self.schedule.straight_step(z, z_0, r, after)
        guess = x.detach() + self.scale * z
        user: Tensor = state + self.read(guess / self.scale)
        return user

    def _states(self, sequence: Tensor, mask: Tensor, lag: Tensor) -> Tensor:
        age = torch.expm1(lag)
        wait = torch.log1p((age - functional.pad(age[:, 1:], (0, 1))).clamp(min=0))
        bucket = (BUCKETS_PER_E * wait).long().clamp(max=BUCKETS - 1)
        out: Tensor = self.body(sequence + self.waits(bucket) * mask.unsqueeze(-1), mask)
        return out

    def _measure(self, x: Tensor) -> None:
        """Let the running scale follow the root mean square of the behaviours' vectors."""
        now = x.square().mean().sqrt() if len(x) else self.scale
        self.scale.copy_(
            torch.where(torch.isfinite(now) & (now > 0), torch.lerp(now, self.scale, SCALE_MEMORY), self.scale)
        )
