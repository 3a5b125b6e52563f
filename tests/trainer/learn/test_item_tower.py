import torch

from contracts.config.settings import ModelSettings
from tests.trainer.trainer_cases import make_catalogue
from trainer.data.catalogue import Catalogue
from trainer.learn.item_tower import ItemTower

SETTINGS = ModelSettings(dim=4)


def test_rows_stay_where_they_are_when_the_catalogue_grows() -> None:
    catalogue = make_catalogue(5)
    tower = ItemTower(SETTINGS, seed=0)
    tower.follow(catalogue)
    before, table = tower().detach(), tower.ids
    catalogue.put(99, [7, 8])
    tower.follow(catalogue)
    assert tower.ids is table
    assert tower().shape == (6, 4)
    assert torch.equal(tower().detach()[:5], before)


def test_an_items_first_vector_depends_neither_on_order_nor_on_moment() -> None:
    one, other = Catalogue(), Catalogue()
    for item_id in (3, 1, 2):
        one.put(item_id, [item_id])
    for item_id in (2, 3, 1):
        other.put(item_id, [item_id])
    first, second = ItemTower(SETTINGS, seed=5), ItemTower(SETTINGS, seed=5)
    second.load_state_dict(first.state_dict())
    first.follow(one)
    second.follow(other)
    assert torch.allclose(first().detach()[one.arrival], second().detach()[other.arrival])


def test_an_item_without_categories_is_its_id_alone() -> None:
    catalogue = Catalogue()
    catalogue.put(1, [])
    catalogue.put(2, [4])
    tower = ItemTower(SETTINGS, seed=0)
    tower.follow(catalogue)
    vectors = tower().detach()
    assert torch.allclose(vectors[0], tower.ids.detach()[0])
    assert not torch.allclose(vectors[1], tower.ids.detach()[1])


def test_the_newest_categories_of_an_item_win() -> None:
    catalogue = make_catalogue(3)
    tower = ItemTower(SETTINGS, seed=0)
    tower.follow(catalogue)
    before = tower().detach()
    version = catalogue.version
    catalogue.put(2, [50])
    assert catalogue.version > version
    tower.follow(catalogue)
    assert torch.equal(tower().detach()[[0, 2]], before[[0, 2]])
    assert not torch.equal(tower().detach()[1], before[1])
