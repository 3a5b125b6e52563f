import torch

from tests.trainer.models.encoder_cases import LONG, LONG_FULL, walk
from trainer.models import create
from trainer.models.dat import DAT


def test_dats_mimics_learn_and_what_they_imitate_does_not() -> None:
    encoder = create("dat", LONG, seed=0)
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
    encoder = create("dat", LONG, seed=0)
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
    encoder = create("dat", LONG, seed=0)
    assert isinstance(encoder, DAT)
    raw = walk(1)
    shaped = encoder.shape_items(raw[0])
    assert not torch.allclose(shaped, raw[0], atol=0.05)
    features = encoder._features(shaped.unsqueeze(0), LONG_FULL)
    assert torch.allclose(features, torch.cat((raw.mean(1), raw[:, -3:].mean(1)), 1), atol=1e-6)
