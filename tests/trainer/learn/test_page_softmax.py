import torch
from torch.nn import functional

from trainer.learn.page_softmax import page_loss


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, requires_grad=True)


def test_it_is_the_cross_entropy_among_what_stood_on_the_page():
    user, vectors = drawn(3, 4), drawn(6, 4)
    wanted, passed = torch.tensor([0, 1, 2]), torch.tensor([[3, 4], [5, -1], [-1, -1]])
    expected = 0.0
    for row, beside in enumerate(([0, 3, 4], [1, 5])):
        scores = (vectors[beside] @ user[row]).unsqueeze(0)
        expected = expected + functional.cross_entropy(scores, torch.tensor([0]))
    found = page_loss(user, vectors, wanted, passed)
    assert torch.isclose(found, expected / 3)
    ours = torch.autograd.grad(found, (user, vectors))
    theirs = torch.autograd.grad(expected / 3, (user, vectors))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    assert not ours[0][2].any()  # nothing was passed, so nothing was chosen


def test_pages_of_which_nothing_is_known_cost_nothing():
    user, vectors = drawn(2, 4), drawn(6, 4)
    for passed in (torch.empty(2, 0, dtype=torch.int64), torch.full((2, 3), -1)):
        loss = page_loss(user, vectors, torch.tensor([0, 1]), passed)
        assert float(loss.detach()) == 0
        assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (user, vectors)))
