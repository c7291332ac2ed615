"""Commands that wait for the next trip."""

from brokers.state.batch import Batch


def test_commands_stay_in_the_order_in_which_they_were_added() -> None:
    more = Batch().add("B", 1).add("C")

    batch = Batch().add("A").extend(more).add("D")

    assert list(batch) == [("A",), ("B", 1), ("C",), ("D",)]
    assert list(more) == [("B", 1), ("C",)]


def test_what_was_taken_is_not_sent_again() -> None:
    batch = Batch().add("A")

    taken = batch.take()
    batch.add("B")

    assert (list(taken), list(batch.take()), len(batch)) == ([("A",)], [("B",)], 0)
