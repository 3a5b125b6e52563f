"""Encoders of the roads that `benchmarks.trainer.roads` measures, each with its exact ablation.

An ablation has every weight and every network evaluation of its encoder, but neither noise nor a denoising loss.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder, normal
from trainer.models.diffusion import Schedule
from trainer.models.places import at_the_end, followers, next_places
from trainer.models.t2diff import EVALUATIONS, KL_WEIGHT, STEP_WIDTH, T2Diff
from trainer.models.unet import sinusoids

DROPPED = 0.1  # p, the chance that an example is learned without its condition (Ho and Salimans, 2022)
INTERESTS = 4  # K
RECONSTRUCTION = 1.0  # weight of ‖x̂_0 − x_0‖²
FIRST_SCALE = 10.0  # of cosines as scores; it is learned


class Guided(T2Diff):
    """`t2diff` whose user is x̂ alone, with classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

    The condition is the state and the last item. While the encoder learns, an example goes without it with the chance
    `DROPPED`; served is x̂ = (1 + w) x̂(condition) − w x̂(none). As the reverse process starts from the mean of z_T,
    x̂(none) is one vector for everybody.
    """

    diffuses = True
    beside = False  # whether the state stands beside x̂, which then is read through the gate

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.optional_part = ""
        self.guidance = 0.0  # w
        self.nobody = nn.Parameter(0.02 * torch.randn(settings.dim))  # the state where there is no condition
        if not self.beside:
            del self.gate
            nn.init.eye_(self.read.weight)

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
        dropped = (torch.rand(len(x), 1, generator=generator) < DROPPED).to(x.device)
        told, last = torch.where(dropped, self.nobody, state), x.masked_fill(dropped, 0)
        if self.diffuses:
            follows = followers(sequence, target, places)
            extra = KL_WEIGHT * self._diffusion_losses(told, last.detach(), follows.detach(), generator).mean()
        else:
            self._measure(last.detach())
            extra = x.new_zeros(())
        return TrainingStep(self._seen(state, self.guess(told, last, last)), extra, places)

    def _user(self, state: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        guess = self.guess(state, x, noise)
        if self.guidance:
            none = self.guess(self.nobody.unsqueeze(0), torch.zeros_like(x[:1]), noise)
            guess = (1 + self.guidance) * guess - self.guidance * none
        return self._seen(state, guess)

    def _seen(self, state: Tensor, guess: Tensor) -> Tensor:
        """The user, (M, d)."""
        read: Tensor = self.read(guess / self.scale)
        return state + self.gate * read if self.beside else read


class GuidedWithoutDiffusion(Guided):
    """The exact ablation of `Guided`: the same network, evaluated as often, with the tower's loss alone."""

    diffuses = False


class GuidedBeside(Guided):
    """`t2diff` itself, the state beside x̂ and a gate before it; the condition is dropped and weighed in x̂ alone."""

    beside = True


class GuidedBesideWithoutDiffusion(GuidedBeside):
    """The exact ablation of `GuidedBeside`."""

    diffuses = False


class Sphere(UserEncoder):
    """Diffusion on the unit sphere under guidance of several interests.

    After Li et al., DimeRec, arXiv 2408.12153: K interests are pooled from the history by self-attention and guide a
    reverse process that starts from noise and ends in x̂_0, the user; scores are cosines times a learned scale. Learned
    are the softmax of x̂_0 (made as serving makes it, from noise), the softmax of the interest that fits best, and
    ‖x̂_0 − x_0‖² of noised targets. Where we leave the paper: the steps are few and deterministic, the last item is
    guidance, too, and a target is noised by one arc in a random direction, as long as the schedule says, instead of a
    walk of many.
    """

    diffuses = True

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        if self.diffuses:
            self.noise_shape = (d,)
        self.hidden, self.pick = nn.Linear(d, d), nn.Linear(d, INTERESTS, bias=False)
        self.recency = nn.Parameter(torch.zeros(INTERESTS, settings.window))
        self.schedule = Schedule(settings.diffusion_steps, settings.diffusion_schedule)
        self.register_buffer("_sinusoids", sinusoids(settings.diffusion_steps + 1, STEP_WIDTH), persistent=False)
        self._sinusoids: Tensor
        self.step = nn.Linear(STEP_WIDTH, 2 * d)
        self.enter = nn.Linear((INTERESTS + 2) * d, 2 * d)
        self.leave, self.skip = nn.Linear(2 * d, d), nn.Linear((INTERESTS + 1) * d, d)
        self.start = nn.Parameter(torch.randn(d))  # where the ablation starts
        self.log_scale = nn.Parameter(torch.tensor(FIRST_SCALE).log())

    def shape_items(self, vectors: Tensor) -> Tensor:
        """See `UserEncoder.shape_items`: of length 1."""
        return functional.normalize(vectors, dim=1)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        del lag
        at = torch.arange(1, len(sequence) + 1, device=sequence.device) * sequence.shape[1] - 1
        user: Tensor = self.log_scale.exp() * self._generate(self._guidance(sequence, mask, at), noise)
        return user

    def training_step(
        self,
        sequence: Tensor,
        mask: Tensor,
        lag: Tensor,
        target: Tensor,
        generator: torch.Generator,
        learn: Tensor | None = None,
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; each place is learned twice, by x̂_0 and by its best interest."""
        del lag
        at, places = next_places(at_the_end(mask) if learn is None else learn)
        guidance, x_0 = self._guidance(sequence, mask, at), followers(sequence, target, places).detach()
        user = self._generate(guidance, normal(tuple(x_0.shape), generator, x_0))
        fit = (guidance[:, :INTERESTS] @ x_0.unsqueeze(2)).squeeze(2)
        best = functional.normalize(guidance[torch.arange(len(at)), fit.argmax(1)], dim=1)
        extra = user.new_zeros(())
        if self.diffuses:
            r = torch.randint(1, self.schedule.steps + 1, (len(at),), generator=generator).to(x_0.device)
            arc = self.schedule.alpha_bar(r).sqrt().acos().to(x_0.dtype).unsqueeze(1)
            x_r = along(x_0, normal(tuple(x_0.shape), generator, x_0), arc)
            extra = RECONSTRUCTION * (self._denoise(x_r, guidance, r) - x_0).square().sum(1).mean()
        return TrainingStep(self.log_scale.exp() * torch.cat((user, best)), extra, torch.cat((places, places)))

    def _guidance(self, sequence: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """Interests and, last, the newest item by places (M,) of the flattened (B, n); (M, K + 1, d)."""
        n = sequence.shape[1]
        whose, back = at // n, (at % n).unsqueeze(1) - torch.arange(n, device=at.device)
        there = ((back >= 0) & (mask[whose] > 0)).unsqueeze(1)
        fit = self.pick(self.hidden(sequence).tanh())[whose].transpose(1, 2)
        fit = fit + self.recency[:, back.clamp(min=0)].transpose(0, 1)
        weights = fit.masked_fill(~there, -1e9).softmax(2) * there.any(2, keepdim=True)
        return torch.cat((weights @ sequence[whose], sequence.flatten(0, 1)[at].unsqueeze(1)), 1)

    def _generate(self, guidance: Tensor, noise: Tensor) -> Tensor:
        """x̂_0 in few deterministic steps from a point drawn evenly from the sphere, or a learned one; (M, d)."""
        z = functional.normalize(noise if self.diffuses else self.start.expand(len(guidance), -1), dim=1)
        for r, after in self.schedule.ladder(EVALUATIONS):
            x_0 = self._denoise(z, guidance, torch.tensor([r], device=z.device))
            z = along(x_0, z, torch.tensor(self.schedule.alpha_bars[after] ** 0.5).acos())
        return z

    def _denoise(self, z: Tensor, guidance: Tensor, step: Tensor) -> Tensor:
        guide = guidance.flatten(1)
        h = self.enter(torch.cat((z, guide), 1)) + self.step(self._sinusoids[step])
        return functional.normalize(self.leave(functional.silu(h)) + self.skip(guide), dim=1)


class SphereWithoutDiffusion(Sphere):
    """The exact ablation of `Sphere`: the same steps from a learned point, without noise and reconstruction."""

    diffuses = False


def along(x: Tensor, direction: Tensor, arc: Tensor) -> Tensor:
    """The exponential map: from points of the sphere an arc in a direction, which is made tangent; (M, d).

    Args:
        x: (M, d) of length 1.
        direction: (M, d) of any length.
        arc: radians, broadcasts against x.

    >>> along(torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 2.0]]), torch.tensor(torch.pi / 2)).round().abs().tolist()
    [[0.0, 1.0]]

    """
    tangent = functional.normalize(direction - (direction * x).sum(1, keepdim=True) * x, dim=1)
    return arc.cos() * x + arc.sin() * tangent
