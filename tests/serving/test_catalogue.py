"""What a replica keeps of a catalogue is bounded, however large that is."""

import tracemalloc

from contracts.config.settings import ServingSettings
from contracts.wire.events_pb2 import Item
from serving.catalogue import NEWEST_PER_ANSWER, Newest

ITEMS = 100_000


def test_the_newest_items_of_a_large_catalogue_take_two_megabytes_at_most() -> None:
    room = NEWEST_PER_ANSWER * ServingSettings().max_k
    item = Item(item_id=1)
    tracemalloc.start()
    try:
        newest = Newest(room)
        for item_id in range(1, ITEMS + 1):
            newest.take(item_id, item)
        newest.show()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert newest.ids == tuple(range(ITEMS, ITEMS - room, -1))
    assert held < 2e6


def test_what_is_deleted_or_blocked_makes_room_and_what_comes_again_is_the_newest() -> None:
    newest = Newest(room=3)
    for item_id in (1, 2, 3):
        newest.take(item_id, Item(item_id=item_id))
    newest.take(2, Item(item_id=2, blocked=True))
    newest.take(9, None)  # of which nothing was known
    newest.take(4, Item(item_id=4))
    assert newest.ids == (), "nothing is shown before it is said to be"
    newest.show()
    assert newest.ids == (4, 3, 1)
    newest.take(1, Item(item_id=1))
    newest.take(2, Item(item_id=2))
    newest.show()
    assert newest.ids == (2, 1, 4)
