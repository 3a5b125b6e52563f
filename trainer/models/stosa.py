"""STOSA (Fan et al., Sequential Recommendation via Stochastic Self-Attention, WWW 2022): items and users as Gaussians.

Attention and scores are the negative squared 2-Wasserstein distance, between Gaussians of diagonal covariance

    W₂²(a, b) = ‖μ_a − μ_b‖² + ‖σ_a − σ_b‖².

An item's vector holds [μ, σ, −½(‖μ‖² + ‖σ‖²), 0…] and a user's [μ, σ, 1, 0…], so that their inner product is −½ W₂² but
for ½(‖μ_u‖² + ‖σ_u‖²), which is the same for all items.

Where we leave the paper: the shared softmax over all items instead of its pairwise loss and positive-item regulariser;
items are h = (d − 1) // 2 wide in mean and deviation, the layers d; pre-norm layers as in the other models here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.layers import CausalEncoder, attention_bias, drop, heads_for

DEPTH = 1


class StochasticLayer(nn.Module):
    """Self-attention over Gaussians, then a feed-forward network for either parameter; pre-norm, with residual paths.

    Two streams run through it: one from which means are read, one from which deviations and variances are, by elu + 1.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self._heads, self._dropout = heads, dropout
        self._scale = (dim // heads) ** -0.5
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))
        self.means = nn.Linear(dim, 3 * dim)
        self.spreads = nn.Linear(dim, 3 * dim)
        self.mixes = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))
        self.hidden = nn.ModuleList(nn.Linear(dim, 4 * dim) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(4 * dim, dim) for _ in range(2))

    def forward(self, mean: Tensor, spread: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams (B, n, d) to the same; `bias` (B, 1, n, n) is added to the attention's scores."""
        mean_q, mean_k, mean_v = self._split(self.means(self.norms[0](mean)))
        spread_q, spread_k, variance_v = self._split(positive(self.spreads(self.norms[1](spread))))
        query, key = torch.cat((mean_q, spread_q), -1), torch.cat((mean_k, spread_k), -1)
        weight = self._drop((bias - self._scale * distances(query, key)).softmax(-1))
        # A sum of independent Gaussians: means add with the weights, variances with their squares.
        mean = mean + self._drop(self.mixes[0](_join(weight @ mean_v)))
        spread = spread + self._drop(self.mixes[1](_join(weight.square() @ variance_v)))
        return self._feed(mean, 0), self._feed(spread, 1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = torch.unflatten(x, 2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _feed(self, x: Tensor, stream: int) -> Tensor:
        hidden = functional.elu(self.hidden[stream](self.norms[2 + stream](x)))
        return x + self._drop(self.out[stream](self._drop(hidden)))

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self._dropout, training=self.training)


class STOSA(CausalEncoder):
    """The Gaussian at the last behaviour is the user."""

    def __init__(self, settings: ModelSettings) -> None:
        """Make the encoder.

        Raises:
            ValueError: vectors are too narrow for Gaussians.

        """
        super().__init__()
        d = settings.dim
        if d < 3:
            raise ValueError("STOSA needs vectors of at least 3 dimensions: a mean, a deviation and their norm.")
        self._items = (d - 1) // 2  # h
        self._dropout = settings.dropout
        self.lift = nn.ModuleList(nn.Linear(self._items, d) for _ in range(2))
        self.places = nn.Parameter(0.02 * torch.randn(2, settings.window, d))
        self.layers = nn.ModuleList(StochasticLayer(d, heads_for(d), settings.dropout) for _ in range(DEPTH))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(2))
        self.lower = nn.ModuleList(nn.Linear(d, self._items) for _ in range(2))

    def shape_items(self, vectors: Tensor) -> Tensor:
        """[μ, σ, −½(‖μ‖² + ‖σ‖²), 0…]: h numbers are the means, the next h give the deviations, others are not used."""
        h = self._items
        gaussian = torch.cat((vectors[:, :h], positive(vectors[:, h : 2 * h])), 1)
        norm = -0.5 * gaussian.square().sum(1, keepdim=True)
        return functional.pad(torch.cat((gaussian, norm), 1), (0, vectors.shape[1] - 2 * h - 1))

    def states(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """The user after each behaviour, [μ, σ, 1, 0…]; (B, n, d) to the same."""
        h, n = self._items, sequence.shape[1]
        mean, spread = (
            drop(lift(part) + places[-n:], self._dropout, training=self.training)
            for lift, part, places in zip(
                self.lift, (sequence[..., :h], sequence[..., h : 2 * h]), self.places, strict=True
            )
        )
        bias = attention_bias(mask, causal=True)
        for layer in self.layers:
            mean, spread = layer(mean, spread, bias)
        mean = self.lower[0](self.norms[0](mean))
        spread = positive(self.lower[1](self.norms[1](spread)))
        gaussian = torch.cat((mean, spread, torch.ones_like(mean[..., :1])), -1)
        return functional.pad(gaussian, (0, sequence.shape[2] - 2 * h - 1))


def distances(one: Tensor, other: Tensor) -> Tensor:
    """W₂² of every pair of Gaussians that are given as [μ, σ]; (..., n, w) and (..., m, w) give (..., n, m).

    >>> distances(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 5.0], [0.0, 2.0]])).tolist()
    [[25.0, 1.0]]
    """
    squares = one.square().sum(-1).unsqueeze(-1) + other.square().sum(-1).unsqueeze(-2)
    return squares - 2 * one @ other.transpose(-1, -2)


def positive(x: Tensor) -> Tensor:
    """Elu + 1, by which the paper keeps covariances positive."""
    return functional.elu(x) + 1


def _join(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)
