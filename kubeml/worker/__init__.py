"""The worker: it takes slots of jobs, trains them, and hands their work in."""
