"""What a participant did, as Flower shows it."""

from kubeml.worker.participant import Served


def test_result_names_epochs_slots_and_rounds_in_order() -> None:
    served = Served()
    for epoch, round_index, slot in [(2, 4, 3), (2, 0, 0), (2, 1, 0), (2, 3, 0), (1, 7, 1)]:
        served.note(epoch=epoch, round_index=round_index, slot=slot)

    assert str(served) == "epoch 1: slot 1 round 7; epoch 2: slot 0 rounds 0-1 3, slot 3 round 4"


def test_result_of_somebody_who_was_not_needed_says_so() -> None:
    assert str(Served()) == "nothing handed in"


def test_result_is_short_enough_not_to_be_cut_elsewhere() -> None:
    served = Served()
    for number in range(2000):
        served.note(epoch=1, round_index=number * 2, slot=0)

    assert len(str(served)) < 1024
    assert str(served).endswith("…")
