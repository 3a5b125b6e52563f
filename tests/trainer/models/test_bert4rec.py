import torch

from tests.trainer.models.encoder_cases import LONG, LONG_FULL, LONG_NOW, serve, walk
from trainer.models import create
from trainer.models.bert4rec import BERT4Rec


def test_bert4rec_sees_nothing_of_what_it_is_asked_for_and_all_else_that_there_is() -> None:
    encoder = create("bert4rec", LONG, seed=0)
    assert isinstance(encoder, BERT4Rec)
    users, n = 64, LONG.window
    sequence = walk(users).requires_grad_()
    mask = torch.ones(users, n)
    mask[:, 0] = 0
    target = torch.ones(users, LONG.dim, requires_grad=True)
    step = encoder.training_step(sequence, mask, torch.zeros(users, n), target, torch.Generator().manual_seed(0))
    assert step.places is not None
    asked = torch.zeros(users * (n + 1))
    asked[step.places] = 1
    asked = asked.view(users, n + 1)
    assert asked[:, -1].all()  # the target
    assert not asked[:, 0].any()  # padding
    assert 0.12 < asked[:, 1:-1].mean() < 0.28
    step.user.square().sum().backward()
    assert sequence.grad is not None
    assert torch.equal((sequence.grad != 0).any(2).float(), mask * (1 - asked[:, :-1]))
    assert target.grad is None


def test_bert4rec_is_served_what_it_was_trained_on() -> None:
    encoder = create("bert4rec", LONG, seed=0)
    sequence = walk(1)
    for seed in range(100):  # until a draw hides nothing but the target
        step = encoder.training_step(sequence, LONG_FULL, LONG_NOW, sequence[:, 0], torch.Generator().manual_seed(seed))
        if len(step.user) == 1:
            break
    assert torch.allclose(step.user, serve(encoder, sequence), atol=1e-6)
