"""What a training worker has done, in numbers, for who asks. Pure."""

from collections import Counter

from brokers.rounds.contribution import Contribution
from kubeml.jobs.round_times import MEASURED
from kubeml.metrics.histogram import Histogram

STAGES = ("init", "train", "validate")

#: What can become of a slot: handed in; refused on the way in (somebody else was faster, or the
#: round is over); taken away meanwhile; its function raised; given back.
OUTCOMES = ("in", "refused", "taken", "error", "drain")


class WorkerBook:
    """The slots a worker has served since its start.

    Attributes:
        num_batches: Batches trained or validated, whatever became of them.
        samples: Stage to rows handed in.
        slots: (stage, outcome) to slots.
        phase_seconds: Phase of a slot's round to its durations.
    """

    def __init__(self) -> None:
        self.num_batches = 0
        self.samples = Counter(dict.fromkeys(STAGES[1:], 0))
        self.slots = Counter({(stage, outcome): 0 for stage in STAGES for outcome in OUTCOMES})
        self.phase_seconds = {phase: Histogram() for phase in MEASURED}

    def hand_in(self, stage: str, contribution: Contribution, answer: str) -> None:
        """Note what was handed in, and what the round store answered."""
        if answer != "OK":
            self.give_up(stage, "refused")
            return
        self.slots[stage, "in"] += 1
        if stage == "init":
            return
        self.samples[stage] += contribution.num_samples
        for phase in MEASURED:
            if phase in contribution.timings:
                self.phase_seconds[phase].observe(contribution.timings[phase])

    def give_up(self, stage: str, outcome: str) -> None:
        """Note a slot that came to nothing here."""
        self.slots[stage, outcome] += 1
