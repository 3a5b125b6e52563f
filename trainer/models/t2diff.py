"""T2Diff, ours: the drift to the next behaviour is diffused, from what a causal transformer has read up to there.

After Wang et al., WWW '25 (doi 10.1145/3696410.3714829); `t2diff_paper` is their model to the letter. Where we leave
it, and what each departure measured, is in docs/model.md.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder, masked_mean, normal
from trainer.models.diffusion import Schedule, diffuse
from trainer.models.layers import Transformer, heads_for
from trainer.models.places import at_the_end, followers, next_places
from trainer.models.unet import sinusoids

OF_THE_GUESS = ("schedule.", "denoiser.", "read.", "gate", "scale")  # names of its weights begin so
EVALUATIONS = 4  # network evaluations of one sampling, see docs/reproduction.md
KL_WEIGHT = 0.1  # λ
SCALE_MEMORY = 0.99  # of the running scale, per step
STEP_WIDTH = 32  # of the step's embedding
BUCKETS_PER_E = 2.0  # waits are told apart by a factor of √e
BUCKETS = 44  # up to e²² s


class Denoiser(nn.Module):
    """ẑ_0 = net([z_r, state], step)  (Eq. 15), at each place for itself: the state has read what came before."""

    def __init__(self, dim: int, steps: int) -> None:
        super().__init__()
        self.register_buffer("_sinusoids", sinusoids(steps + 1, STEP_WIDTH), persistent=False)
        self._sinusoids: Tensor
        self.step = nn.Linear(STEP_WIDTH, 2 * dim)
        self.enter = nn.Linear(2 * dim, 2 * dim)
        self.leave = nn.Linear(2 * dim, dim)

    def forward(self, z: Tensor, state: Tensor, step: Tensor) -> Tensor:
        """(M, d), (M, d) and (M,) or (1,) to (M, d)."""
        h = self.enter(torch.cat((z, state), 1)) + self.step(self._sinusoids[step])
        out: Tensor = self.leave(functional.silu(h))
        return out


class T2Diff(UserEncoder):
    """States of a causal transformer, and at each a guess x̂ at the next behaviour.

    The reverse process starts from the mean of z_T, 0, so that x̂ is an expectation, not a draw, and asking twice gives
    one answer. With `learn_at: last` or `last-k` pooled views stand beside the states: they learn from few examples,
    and a transformer does not.

    `settings.ablate` names parts to leave out: "guess" (no diffusion), "end-to-end" (x̂ learns from L_KL
    alone), "mean-start" (x̂ starts from noise instead of the mean), "waits" (no time).
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self._ablated, self._every_place = settings.ablate, settings.learn_at == "every"
        self.noise_shape = (d,) if "mean-start" in self._ablated and "guess" not in self._ablated else ()
        self.body = Transformer(
            d, settings.window, depth=settings.depth, heads=heads_for(d), dropout=settings.dropout, causal=True
        )
        if not self._every_place:
            self.mean, self.last = nn.Linear(d, d), nn.Linear(d, d)
        self.waits = nn.Parameter(0.02 * torch.randn(BUCKETS, d))
        if "guess" in self._ablated:
            return
        # What a draw is worth as exploration, recall does not show.
        self.optional_part = "" if "mean-start" in self._ablated else "guess"
        self.schedule = Schedule(settings.diffusion_steps, settings.diffusion_schedule)
        self.evaluations = EVALUATIONS
        self.denoiser = Denoiser(d, settings.diffusion_steps)
        self.read = nn.Linear(d, d, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))  # at first x̂ says nothing; learning opens it as far as x̂ is of use
        self.register_buffer("scale", torch.tensor(0.1))
        self.scale: Tensor

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        state = self._state(sequence, mask, lag)
        return state if self.left_out else self._user(state, sequence[:, -1], noise)

    def weights(self) -> dict[str, Tensor]:
        """See `UserEncoder.weights`."""
        every = self.state_dict()
        return {n: w for n, w in every.items() if not n.startswith(OF_THE_GUESS)} if self.left_out else every

    def training_step(
        self,
        sequence: Tensor,
        mask: Tensor,
        lag: Tensor,
        target: Tensor,
        generator: torch.Generator,
        learn: Tensor | None = None,
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; the extra loss is λ·L_KL."""
        at, places = next_places(at_the_end(mask) if learn is None else learn)
        state, x = self._states(sequence, mask, lag).flatten(0, 1)[at], sequence.flatten(0, 1)[at]
        if "guess" in self._ablated:
            return TrainingStep(state, state.new_zeros(()), places)
        follows = followers(sequence, target, places)
        each = self._diffusion_losses(state, x.detach(), follows.detach(), generator)
        user = self._user(state, x, normal(tuple(x.shape), generator, x))
        return TrainingStep(user, KL_WEIGHT * each.mean(), places, KL_WEIGHT * each.mean(1))

    def guess(self, state: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        """x̂ = x + ẑ_0 in few deterministic steps (Eq. 16–18 with η = 0) from z_T = 0, or noise; (M, d) each."""
        z = noise if "mean-start" in self._ablated else torch.zeros_like(x)
        for r, after in self.schedule.ladder(self.evaluations):
            z_0 = self.denoiser(z, state, torch.tensor([r], device=z.device))
            z = self.schedule.straight_step(z, z_0, r, after)
        return x.detach() + self.scale * z

    def _user(self, state: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        if "guess" in self._ablated:
            return state
        guess = self.guess(state, x, noise)
        if "end-to-end" in self._ablated:
            guess = guess.detach()
        user: Tensor = state + self.gate * self.read(guess / self.scale)
        return user

    def _diffusion_losses(self, state: Tensor, x: Tensor, follows: Tensor, generator: torch.Generator) -> Tensor:
        """(ẑ_0 − z_0)² by dimension (Eq. 23 in z_0 form), of the drift to what follows alone; (M, d)."""
        self._measure(x)
        z_0 = (follows - x) / self.scale  # Eq. 11
        r = torch.randint(1, self.schedule.steps + 1, (len(x),), generator=generator).to(x.device)
        bar = self.schedule.alpha_bar(r).to(x.dtype).unsqueeze(1)
        z_r = diffuse(z_0, normal(tuple(x.shape), generator, x), bar)  # Eq. 13–14
        losses: Tensor = (self.denoiser(z_r, state, r) - z_0).square()
        return losses

    def _states(self, sequence: Tensor, mask: Tensor, lag: Tensor) -> Tensor:
        """(B, n, d): at each place what is known when the next behaviour is asked for, its moment included."""
        states: Tensor = self.body(self._tokens(sequence, mask, lag), mask)
        if not self._every_place:
            mean = sequence.cumsum(1) / mask.cumsum(1).clamp(min=1).unsqueeze(-1)
            states = states + self.mean(mean) + self.last(sequence)
        return states

    def _state(self, sequence: Tensor, mask: Tensor, lag: Tensor) -> Tensor:
        """The last place of `_states`, (B, d)."""
        state: Tensor = self.body.last(self._tokens(sequence, mask, lag), mask)
        if not self._every_place:
            state = state + self.mean(masked_mean(sequence, mask)) + self.last(sequence[:, -1])
        return state

    def _tokens(self, sequence: Tensor, mask: Tensor, lag: Tensor) -> Tensor:
        """(B, n, d): the behaviours, each with the wait until what followed it."""
        if "waits" in self._ablated:
            return sequence
        age = torch.expm1(lag)
        wait = torch.log1p((age - functional.pad(age[:, 1:], (0, 1))).clamp(min=0))
        bucket = (BUCKETS_PER_E * wait).long().clamp(max=BUCKETS - 1)
        return sequence + self.waits[bucket] * mask.unsqueeze(-1)

    def _measure(self, x: Tensor) -> None:
        """Let the running scale follow the root mean square of the behaviours' vectors."""
        now = x.square().mean().sqrt() if len(x) else self.scale
        usable = torch.isfinite(now) & (now > 0)
        self.scale.copy_(torch.where(usable, torch.lerp(now, self.scale, SCALE_MEMORY), self.scale))
