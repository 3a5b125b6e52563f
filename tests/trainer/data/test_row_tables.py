from tests.trainer.data.catalogue_cases import Table
from trainer.data.catalogue import Catalogue


def test_following_costs_what_has_changed_and_not_what_there_is() -> None:
    catalogue, table = Catalogue(), Table()
    for item_id in range(1, 1001):
        catalogue.put(item_id, [])
    assert table.follow(catalogue.items) == 1000
    memory = table.content.untyped_storage().data_ptr()
    catalogue.remove(1)  # the last one moves
    catalogue.remove(500)  # the next one does
    catalogue.put(7, [1])  # categories change
    assert table.follow(catalogue.items) == 3
    assert table.content.untyped_storage().data_ptr() == memory


def test_a_table_far_too_large_gives_its_memory_back() -> None:
    catalogue, table = Catalogue(), Table()
    for item_id in range(1, 1001):
        catalogue.put(item_id, [])
    table.follow(catalogue.items)
    full = table.content.untyped_storage().nbytes()
    for item_id in range(1, 901):
        catalogue.remove(item_id)
    table.follow(catalogue.items)
    assert table.content.untyped_storage().nbytes() <= 0.15 * full
    assert sorted(table.content[:, 1].tolist()) == list(range(901, 1001))
