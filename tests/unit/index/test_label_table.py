"""The label table knows where each label is, and one slot holds one label."""

import numpy as np

from vecstow_engine.index.places import NOWHERE, LabelTable
from vecstow_engine.model.points import make_labels


def test_a_label_is_where_it_was_put_last():
    table, labels = LabelTable(), make_labels([5, 1, 900], [1, 1, 2])
    table.put(labels, 1)
    table.put(labels[:1], 3)
    assert table.places(labels).tolist() == [3, 1, 1]
    assert (table.count(1), table.count(3)) == (2, 1)
    assert table.labels_at(1).tolist() == labels[1:].tolist()


def test_another_epoch_or_an_unseen_slot_is_nowhere():
    table = LabelTable()
    table.put(make_labels([5], [1]), 2)
    strangers = make_labels([5, 5, 6, 2**32 - 1], [0, 2, 1, 1])
    assert table.places(strangers).tolist() == [NOWHERE] * 4
    assert not LabelTable().known(strangers).any()


def test_epoch_zero_is_not_known_before_it_is_put():
    table = LabelTable()
    table.put(make_labels([9], [0]), 1)
    assert table.known(make_labels([8, 9], [0, 0])).tolist() == [False, True]


def test_discard_passes_over_other_epochs_of_the_slot():
    table, label = LabelTable(), make_labels([3], [7])
    table.put(label, 1)
    table.discard(make_labels([3, 4], [6, 7]))
    assert table.known(label).all()
    table.discard(label)
    assert not table.known(label).any()
    assert table.count(1) == 0


def test_occupants_are_labels_of_the_same_slots_with_another_epoch():
    table = LabelTable()
    table.put(make_labels([1, 2, 3], [5, 5, 5]), 1)
    table.discard(make_labels([3], [5]))
    assert table.occupants(make_labels([1, 2, 3, 4], [6, 5, 6, 6])).tolist() == make_labels([1], [5]).tolist()


def test_a_slot_is_taken_under_any_epoch():
    table = LabelTable()
    table.put(make_labels([1, 2], [5, 5]), 1)
    table.discard(make_labels([2], [5]))
    assert table.taken(make_labels([1, 1, 2, 900], [5, 4, 5, 1])).tolist() == [True, True, False, False]


def test_counts_follow_ten_thousand_random_changes():
    generator, table, model = np.random.default_rng(1), LabelTable(), {}
    for _ in range(200):
        slots = generator.choice(500, 50, replace=False)
        labels = make_labels(slots, generator.integers(0, 3, 50))
        place = int(generator.integers(1, 4))
        if generator.random() < 0.3:
            table.discard(labels)
            gone = set(labels.tolist())
            model = {slot: (label, at) for slot, (label, at) in model.items() if label not in gone}
        else:
            table.put(labels, place)
            model.update((int(s), (label, place)) for s, label in zip(slots, labels.tolist(), strict=True))
    for place in (1, 2, 3):
        expected = sorted(label for label, at in model.values() if at == place)
        assert sorted(table.labels_at(place).tolist()) == expected
        assert table.count(place) == len(expected)
