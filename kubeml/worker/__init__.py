"""The worker: takes slots, trains them, hands their work in."""
