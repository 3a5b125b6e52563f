import torch

from contracts.config.settings import ModelSettings
from tests.trainer.models.encoder_cases import LONG, LONG_NOW, serve, walk
from trainer.models import create
from trainer.models.gru4rec import GRU4Rec
from trainer.models.places import learned_places


def test_gru4rec_learns_at_each_place_what_it_would_be_served_there() -> None:
    encoder = create("gru4rec", LONG, seed=0)
    sequence = torch.cat((torch.zeros(1, 2, 8), walk(1)[:, 2:]), 1)
    mask = torch.tensor([[0.0, 0, 1, 1, 1, 1, 1]])
    step = encoder.training_step(sequence, mask, LONG_NOW, walk(1)[:, 0], torch.Generator(), mask > 0)
    assert step.places is not None
    assert step.places.tolist() == [3, 4, 5, 6, 7]
    cut = torch.cat([serve(encoder, sequence[:, 2 : 3 + i]) for i in range(5)])
    assert torch.allclose(step.user, cut, atol=1e-6)


def test_gru4rec_learns_what_a_user_without_history_wants() -> None:
    encoder = create("gru4rec", LONG, seed=0)
    nobody = torch.zeros(2, 7)
    learn = learned_places(nobody, ModelSettings(learn_at="every"))
    step = encoder.training_step(torch.zeros(2, 7, 8), nobody, nobody, walk(2)[:, 0], torch.Generator(), learn)
    assert step.places is not None
    assert step.places.tolist() == [7, 15]


def test_gru4rec_is_the_gru_of_the_paper() -> None:
    encoder = create("gru4rec", LONG, seed=0)
    assert isinstance(encoder, GRU4Rec)
    w_z, w_r, w = encoder.read.weight.chunk(3)
    b_z, b_r, b = encoder.read.bias.chunk(3)
    u_z, u_r = encoder.gates.weight.chunk(2)
    h = torch.zeros(8)
    for x in walk(1)[0]:
        z, r = torch.sigmoid(w_z @ x + u_z @ h + b_z), torch.sigmoid(w_r @ x + u_r @ h + b_r)
        h = (1 - z) * h + z * torch.tanh(w @ x + encoder.recall.weight @ (r * h) + b)
    assert torch.allclose(serve(encoder, walk(1))[0], encoder.out(h), atol=1e-6)
