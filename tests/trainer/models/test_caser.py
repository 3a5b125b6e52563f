import torch

from tests.trainer.models.encoder_cases import LONG, serve, walk
from trainer.models import create
from trainer.models.caser import LENGTH, Caser


def test_caser_reads_the_order_of_its_last_behaviours_and_no_others() -> None:
    encoder = create("caser", LONG, seed=0)
    sequence = walk(1)
    user = serve(encoder, sequence)
    older = torch.cat((walk(1, seed=1)[:, :-LENGTH], sequence[:, -LENGTH:]), 1)
    assert torch.equal(serve(encoder, older), user)
    for i in range(LONG.window - LENGTH, LONG.window - 1):
        order = list(range(LONG.window))
        order[i], order[i + 1] = i + 1, i
        assert (serve(encoder, sequence[:, order]) - user).abs().max() > 1e-4


def test_casers_horizontal_filters_find_a_pattern_wherever_it_stands() -> None:
    encoder = create("caser", LONG, seed=0)
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
