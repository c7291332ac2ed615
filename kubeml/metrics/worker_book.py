"""What a training worker has done, in numbers, for its metrics. Pure."""

from collections import Counter

from brokers.rounds.contribution import Contribution
from kubeml.jobs.round_times import MEASURED
from kubeml.metrics.histogram import Histogram

STAGES = ("init", "train", "validate")

#: What can become of a slot: it was handed in; it was refused when it was handed in (another worker
#: was faster, or the round is over); it was taken away meanwhile; its function raised; or it was
#: given back.
OUTCOMES = ("in", "refused", "taken", "error", "drain")


class WorkerBook:
    """The slots a worker has served since its start.

    Attributes:
        num_batches: Batches trained or validated, whatever became of their slots.
        samples: Stage to the number of rows handed in.
        slots: (stage, outcome) to the number of slots.
        phase_seconds: Phase of a slot's round to the phase's durations.
    """

    def __init__(self) -> None:
        self.num_batches = 0
        self.samples = Counter(dict.fromkeys(STAGES[1:], 0))
        self.slots = Counter({(stage, outcome): 0 for stage in STAGES for outcome in OUTCOMES})
        self.phase_seconds = {phase: Histogram() for phase in MEASURED}

    def hand_in(self, stage: str, contribution: Contribution, answer: str) -> None:
        """Note a contribution that was handed in, and what the round store answered."""
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
        """Note a slot that came to nothing in this worker."""
        self.slots[stage, outcome] += 1
