"""What sequence models share: transformer layers over behaviours, blind to padding, and states at every place.

Sequences end at the right edge and places are counted from there, so the amount of padding cannot be told.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.base import UserEncoder

NEVER = -1e9  # the attention score of padding; finite, so that a row of nothing but padding stays finite


class CausalEncoder(UserEncoder):
    """An encoder with a state at every place, each of which is the user there, so that it can learn at all of them.

    Subclasses define `states`.
    """

    def states(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """The user after each behaviour, (B, n, d) to the same; what stands at padding is without meaning."""
        raise NotImplementedError

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        del lag, noise
        return self.states(sequence, mask)[:, -1]

    def users_at(self, sequence: Tensor, mask: Tensor, lag: Tensor, at: Tensor) -> Tensor:
        """See `UserEncoder.users_at`."""
        del lag
        return self.states(sequence, mask).flatten(0, 1)[at]


class Layer(nn.Module):
    """Pre-norm self-attention and feed-forward, each with a residual path and dropout."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self._heads, self._dropout = heads, dropout
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.mix = nn.Linear(dim, dim)
        self.norm_hidden = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, hidden)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, n, d) to the same; `bias` (B, 1 or heads, n, n) is added to the attention's scores."""
        h = self.norm_attention(x)
        q, k, v = self._split(self.qkv(h), 3)
        return self._feed_forward(x + self._drop(self._attend(q, k, v, bias)))

    def last(self, x: Tensor, bias: Tensor) -> Tensor:
        """The last place of what `forward` gives, (B, n, d) to (B, 1, d), without the work for the others."""
        h, d = self.norm_attention(x), x.shape[2]
        weight, offset = self.qkv.weight, self.qkv.bias
        (q,) = self._split(functional.linear(h[:, -1:], weight[:d], offset[:d]), 1)
        k, v = self._split(functional.linear(h, weight[d:], offset[d:]), 2)
        return self._feed_forward(x[:, -1:] + self._drop(self._attend(q, k, v, bias[:, :, -1:])))

    def _split(self, h: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, n, parts · d) to so many of (B, heads, n, d / heads)."""
        split: Tensor = h.unflatten(2, (parts, self._heads, -1))  # type: ignore[no-untyped-call]
        return split.permute(2, 0, 3, 1, 4).unbind(0)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = self.mix(functional.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).flatten(2))
        return out

    def _feed_forward(self, x: Tensor) -> Tensor:
        return x + self._drop(self.out(self._drop(functional.gelu(self.hidden(self.norm_hidden(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self._dropout, training=self.training)


class Transformer(nn.Module):
    """Learned places from the right edge, `depth` layers and a last norm."""

    def __init__(
        self, dim: int, length: int, *, depth: int, heads: int, dropout: float = 0.0, causal: bool = False
    ) -> None:
        super().__init__()
        self._dropout, self._causal = dropout, causal
        self.places = nn.Parameter(0.02 * torch.randn(length, dim))
        self.layers = nn.ModuleList(Layer(dim, heads, 4 * dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, n, d) and mask (B, n) to (B, n, d); what stands under the padding is without meaning."""
        h, bias = self._enter(x, mask)
        for layer in self.layers:
            h = layer(h, bias)
        out: Tensor = self.norm(h)
        return out

    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        """The last place of what `forward` gives, (B, n, d) to (B, d): all that serving asks for.

        The last layer's other places are not worked out.
        """
        h, bias = self._enter(x, mask)
        for layer in self.layers[:-1]:
            h = layer(h, bias)
        top = self.layers[-1]
        assert isinstance(top, Layer)
        out: Tensor = self.norm(top.last(h, bias)[:, 0])
        return out

    def _enter(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        h = drop(x + self.places[-x.shape[1] :], self._dropout, training=self.training)
        return h, attention_bias(mask, causal=self._causal)


def attention_bias(mask: Tensor, *, causal: bool) -> Tensor:
    """What to add to attention scores: nobody reads padding nor, if causal, what comes later; (B, 1, n, n).

    Everyone reads himself, so that attention never runs dry and an empty history is a history like any other.

    >>> (attention_bias(torch.tensor([[0.0, 1.0]]), causal=True) < 0).tolist()
    [[[[False, True], [True, False]]]]
    """
    n = mask.shape[1]
    hidden = (1 - mask)[:, None, None, :].expand(-1, 1, n, n)
    if causal:
        hidden = hidden.maximum(torch.ones(n, n, device=mask.device, dtype=mask.dtype).triu(1))
    return NEVER * hidden * (1 - torch.eye(n, device=mask.device, dtype=mask.dtype))


def drop(x: Tensor, share: float, *, training: bool) -> Tensor:
    """Dropout with a byte of randomness a number, so the share is rounded to 1/256.

    Torch's own draws 8 bytes a number one by one, which on the CPU costs more than the layer it follows.
    """
    cut = round(256 * share)
    if not training or not cut:
        return x
    draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    keep = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= cut
    return x * keep * (256 / (256 - cut))


def heads_for(dim: int, wanted: int = 2) -> int:
    """The most heads up to `wanted` that divide the width.

    >>> heads_for(64), heads_for(7)
    (2, 1)
    """
    return next(h for h in range(wanted, 0, -1) if dim % h == 0)
