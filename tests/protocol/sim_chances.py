"""How often what goes wrong in the simulator."""

#: Chance of each fault: per turn, or where an actor asks whether it happens.
PER_TURN = {
    "kill": 0.003,
    "pause": 0.002,
    "flush": 0.0007,
    "snapshot": 0.006,
    "rollback": 0.0015,
    "jump": 0.0015,
    "stop": 0.0001,
}
PER_CALL = {"double": 0.03, "late": 0.05, "kill after": 0.003, "stall": 0.01}
IN_ACTORS = {
    "error": 0.04,
    "corrupt": 0.04,
    "misread": 0.1,
    "hasty": 0.2,
    "expire": 0.04,
    "slow worker": 0.12,
    "slow merge": 0.2,
    "lost message": 0.15,
    "share": 0.1,
    "new job": 0.2,
    "doubled message": 0.1,
}
CHANCES = {**PER_TURN, **PER_CALL, **IN_ACTORS}

#: Calls of these scripts are repeated more often than others: they change what counts.
COUNTING = frozenset({"contrib", "advance", "finish", "plan", "kick"})

HOUR_MS = 3_600_000

PAUSES_MS = (200, 1000, 4000, 10_000)
DELAYS_MS = (0, 50, 500, 1000, 2000, 5000)
