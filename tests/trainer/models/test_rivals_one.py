"""What is particular to BERT4Rec, GRU4Rec, Caser and DAT."""

import pytest
import torch
from torch import Tensor

from contracts.config.settings import ModelSettings
from trainer.models import create
from trainer.models.bert4rec import BERT4Rec
from trainer.models.caser import LENGTH, Caser
from trainer.models.dat import DAT
from trainer.models.gru4rec import GRU4Rec

SETTINGS = ModelSettings(dim=8, window=7, session_length=3)
FULL, NOW = torch.ones(1, 7), torch.zeros(1, 7)


def walk(users: int, seed: int = 0) -> Tensor:
    return torch.randn(users, SETTINGS.window, SETTINGS.dim, generator=torch.Generator().manual_seed(seed))


def serve(encoder: torch.nn.Module, sequence: Tensor) -> Tensor:
    nothing = sequence.new_zeros(sequence.shape[:2])
    user: Tensor = encoder(sequence, nothing + 1, nothing, torch.empty(len(sequence)))
    return user


@pytest.mark.parametrize("name", ["bert4rec", "caser", "dat", "gru4rec"])
@pytest.mark.parametrize("dim", [2, 3])
def test_the_narrowest_vectors_work(name: str, dim: int) -> None:
    encoder = create(name, ModelSettings(dim=dim, window=3, session_length=50), seed=0)
    items = encoder.shape_items(torch.randn(4, dim, generator=torch.Generator().manual_seed(0)))
    step = encoder.training_step(
        items[:3].unsqueeze(0), torch.ones(1, 3), torch.zeros(1, 3), items[3:], torch.Generator().manual_seed(0)
    )
    assert step.user.shape[1] == dim
    assert torch.isfinite(step.user).all()


def test_bert4rec_sees_nothing_of_what_it_is_asked_for_and_all_else_that_there_is() -> None:
    encoder = create("bert4rec", SETTINGS, seed=0)
    assert isinstance(encoder, BERT4Rec)
    users, n = 64, SETTINGS.window
    sequence = walk(users).requires_grad_()
    mask = torch.ones(users, n)
    mask[:, 0] = 0
    target = torch.ones(users, SETTINGS.dim, requires_grad=True)
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
    encoder = create("bert4rec", SETTINGS, seed=0)
    sequence = walk(1)
    for seed in range(100):  # until a draw hides nothing but the target
        step = encoder.training_step(sequence, FULL, NOW, sequence[:, 0], torch.Generator().manual_seed(seed))
        if len(step.user) == 1:
            break
    assert torch.allclose(step.user, serve(encoder, sequence), atol=1e-6)


def test_gru4rec_learns_at_each_place_what_it_would_be_served_there() -> None:
    encoder = create("gru4rec", SETTINGS, seed=0)
    sequence = torch.cat((torch.zeros(1, 2, 8), walk(1)[:, 2:]), 1)
    mask = torch.tensor([[0.0, 0, 1, 1, 1, 1, 1]])
    step = encoder.training_step(sequence, mask, NOW, walk(1)[:, 0], torch.Generator())
    assert step.places is not None
    assert step.places.tolist() == [3, 4, 5, 6, 7]
    cut = torch.cat([serve(encoder, sequence[:, 2 : 3 + i]) for i in range(5)])
    assert torch.allclose(step.user, cut, atol=1e-6)


def test_gru4rec_learns_what_a_user_without_history_wants() -> None:
    encoder = create("gru4rec", SETTINGS, seed=0)
    nobody = torch.zeros(2, 7)
    step = encoder.training_step(torch.zeros(2, 7, 8), nobody, nobody, walk(2)[:, 0], torch.Generator())
    assert step.places is not None
    assert step.places.tolist() == [7, 15]


def test_gru4rec_is_the_gru_of_the_paper() -> None:
    encoder = create("gru4rec", SETTINGS, seed=0)
    assert isinstance(encoder, GRU4Rec)
    w_z, w_r, w = encoder.read.weight.chunk(3)
    b_z, b_r, b = encoder.read.bias.chunk(3)
    u_z, u_r = encoder.gates.weight.chunk(2)
    h = torch.zeros(8)
    for x in walk(1)[0]:
        z, r = torch.sigmoid(w_z @ x + u_z @ h + b_z), torch.sigmoid(w_r @ x + u_r @ h + b_r)
        h = (1 - z) * h + z * torch.tanh(w @ x + encoder.recall.weight @ (r * h) + b)
    assert torch.allclose(serve(encoder, walk(1))[0], encoder.out(h), atol=1e-6)


def test_caser_reads_the_order_of_its_last_behaviours_and_no_others() -> None:
    encoder = create("caser", SETTINGS, seed=0)
    sequence = walk(1)
    user = serve(encoder, sequence)
    older = torch.cat((walk(1, seed=1)[:, :-LENGTH], sequence[:, -LENGTH:]), 1)
    assert torch.equal(serve(encoder, older), user)
    for i in range(SETTINGS.window - LENGTH, SETTINGS.window - 1):
        order = list(range(SETTINGS.window))
        order[i], order[i + 1] = i + 1, i
        assert (serve(encoder, sequence[:, order]) - user).abs().max() > 1e-4


def test_casers_horizontal_filters_find_a_pattern_wherever_it_stands() -> None:
    encoder = create("caser", SETTINGS, seed=0)
    assert isinstance(encoder, Caser)
    with torch.no_grad():
        for filters in (encoder.vertical, *encoder.horizontal[2:]):  # those that can tell where in the picture they are
            for weight in filters.parameters():
                weight.zero_()
    pair = walk(1)[:, :2]
    early, late, turned = (torch.zeros(1, 7, 8) for _ in range(3))
    early[:, 3:5], late[:, 4:6], turned[:, 4:6] = pair, pair, pair.flip(1)
    assert torch.allclose(serve(encoder, early), serve(encoder, late), atol=1e-6)
    assert not torch.allclose(serve(encoder, turned), serve(encoder, late), atol=1e-4)


def test_dats_mimics_learn_and_what_they_imitate_does_not() -> None:
    encoder = create("dat", SETTINGS, seed=0)
    sequence, target = walk(4).requires_grad_(), walk(4, seed=1)[:, 0].detach().requires_grad_()
    full = torch.ones(4, 7)
    encoder.training_step(sequence, full, full, target, torch.Generator()).extra_loss.backward()
    learnt = {name.split(".")[0] for name, weight in encoder.named_parameters() if weight.grad is not None}
    assert learnt == {"user_augment_hidden", "user_augment", "item_augment"}
    assert sequence.grad is None
    assert target.grad is not None
    assert target.grad[:, :4].abs().max() == 0  # e¹, the part that does not make a_v
    assert target.grad[:, 4:].abs().min() > 0  # e², the item's own row


def test_dats_augmented_vectors_come_to_point_where_the_other_tower_does() -> None:
    encoder = create("dat", SETTINGS, seed=0)
    assert isinstance(encoder, DAT)
    sequence, target, full = walk(4), walk(4, seed=1)[:, 0], torch.ones(4, 7)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        encoder.training_step(sequence, full, full, target, torch.Generator()).extra_loss.backward()
        optimizer.step()
    a_u = encoder._user_augmented(encoder._features(sequence, full))
    assert torch.allclose(a_u, torch.nn.functional.normalize(target), atol=0.05)


def test_dats_user_tower_reads_items_as_they_were_before_the_item_tower() -> None:
    encoder = create("dat", SETTINGS, seed=0)
    assert isinstance(encoder, DAT)
    raw = walk(1)
    shaped = encoder.shape_items(raw[0])
    assert not torch.allclose(shaped, raw[0], atol=0.05)
    features = encoder._features(shaped.unsqueeze(0), FULL)
    assert torch.allclose(features, torch.cat((raw.mean(1), raw[:, -3:].mean(1)), 1), atol=1e-6)
