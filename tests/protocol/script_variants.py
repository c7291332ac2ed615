"""Altered scripts: with a clock that tests can set, and weakened on purpose.

A test that cannot fail proves nothing: each weakening takes one check out of the scripts, and
``test_weakened_scripts.py`` asserts that some test or the simulator then fails.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from brokers.state.scripts import script_sources

_CLOCK = re.compile(r"local function instant\(\)\n.*?\nend\n", re.DOTALL)

#: The time comes from a key of the job, ``kml:{job}:clock`` (KEYS[1] is ``kml:{job}:h``).
_SET_CLOCK = """local function instant()
  return tonumber(redis.call('GET', string.sub(H, 1, -2) .. 'clock'))
end
"""

EVERY_SCRIPT = "*"


@dataclass(frozen=True)
class Change:
    """One replacement in the text of one script (or of all, for the prelude)."""

    script: str
    old: str
    new: str


_RID = "if head('rid') ~= ARGV[3] then return {'STALE'} end"
_ADVANCE_RID = (
    "if head('rid') ~= ARGV[2] or not (state == 'RUN' or state == 'INIT') then return {'STALE'} end"
)
_BY_RID = "if head('rid') == ARGV[3] then"
_CHANGED = "if table.concat(cids, ',') ~= ARGV[6] then return {'CHANGED'} end"

WEAKENINGS: Mapping[str, tuple[Change, ...]] = {
    "no generation check": (Change(EVERY_SCRIPT, "return head('gen') ~= ARGV[1]", "return false"),),
    "no rid check in CONTRIB and ADVANCE": (
        Change("contrib", _RID, ""),
        Change("advance", _ADVANCE_RID, ""),
    ),
    "CONTRIB without rid check": (Change("contrib", _RID, ""),),
    "CONTRIB takes anything": (
        Change(
            "contrib",
            "if not ok or type(handed_in) ~= 'table' or handed_in.cid ~= ARGV[5] then",
            "if false then",
        ),
    ),
    "CONTRIB without lease check": (
        Change("contrib", "if record.t ~= ARGV[2] and not copy then return {'LOST'} end", ""),
    ),
    "CONTRIB replaces what is there": (
        Change("contrib", "local there = redis.call('HGET', C, slot)", "local there = false"),
    ),
    "CONTRIB knocks at every repetition": (
        Change(
            "contrib",
            "local slot, want = ARGV[4], number('want')",
            "local slot, want = ARGV[4], number('want') redis.call('XADD', K, '*', 's', '')",
        ),
    ),
    "CONTRIB without a look at the chunks": (
        Change("contrib", "for i = 11, #KEYS do", "for i = 1, 0 do"),
    ),
    "CONTRIB sends everybody to the bell": (
        Change("contrib", "is_served and last_bell() or ''", "last_bell()"),
    ),
    "CONTRIB names no chunk": (Change("contrib", "KEYS[11] or ''", "''"),),
    "TAKE does not count the time behind the bell": (
        Change("take", "seen and math.min(math.max(at - tonumber(seen), 0), 2000) or 0", "0"),
    ),
    "CONTRIB keeps the lease": (
        Change("contrib", "record.t, record.dl, record.h = '', 0, nil", ""),
    ),
    "ADVANCE without rid check": (Change("advance", _ADVANCE_RID, ""),),
    "ADVANCE is not repeatable": (
        Change(
            "advance", "if head('rid') == ARGV[3] or head('w') == ARGV[4] then", "if false then"
        ),
    ),
    "ADVANCE is repeatable by rid alone": (
        Change("advance", "if head('rid') == ARGV[3] or head('w') == ARGV[4] then", _BY_RID),
    ),
    "ADVANCE without all slots": (
        Change("advance", "if redis.call('HLEN', C) < want then return {'MORE'} end", ""),
        Change(
            "advance",
            "if not text then return {'MORE'} end\n"
            "  local contribution = cjson.decode(text)\n"
            "  cids[#cids + 1] = contribution.cid",
            "local contribution = text and cjson.decode(text) or {}\n"
            "  if text then cids[#cids + 1] = contribution.cid end",
        ),
    ),
    "ADVANCE without cid comparison": (Change("advance", _CHANGED, ""),),
    "ADVANCE without a look at the chunks": (
        Change("advance", "for i = 11, #KEYS do", "for i = 1, 0 do"),
    ),
    "ADVANCE keeps the contributions": (
        Change("advance", "redis.call('DEL', S, C, L)\nif", "redis.call('DEL', S, L)\nif"),
    ),
    "ADVANCE keeps the optimizer states": (
        Change(
            "advance",
            "for slot, reference in pairs(states) do redis.call('HSET', O, slot, reference) end",
            "",
        ),
    ),
    "ADVANCE keeps no local weights": (
        Change("advance", "redis.call('HSET', L, slot, reference)", "break"),
    ),
    "ADVANCE keeps local weights that nobody asked for": (
        Change("advance", "if head('overlap') == '1' then", "if true then"),
    ),
    "stages keep the local weights of the one before": (
        Change(EVERY_SCRIPT, "redis.call('DEL', S, C, P, D, L)", "redis.call('DEL', S, C, P, D)"),
        Change("advance", "redis.call('DEL', S, C, L)", "redis.call('DEL', S, C)"),
    ),
    "TAKE forgets the local weights": (Change("take", "redis.call('HGET', L, slot) or ''", "''"),),
    "TAKE hands out another slot's local weights": (
        Change("take", "redis.call('HGET', L, slot)", "redis.call('HGET', L, 0)"),
    ),
    "ADVANCE wants all slots in the last round": (
        Change(
            "advance",
            "round == rounds - 1 and head('last_want') or head('slots')",
            "head('slots')",
        ),
    ),
    "TAKE without lease check": (
        Change("take", "if is_valid(record, at, length) then return nil end", ""),
    ),
    "TAKE forgets its own lease": (
        Change("take", "mine and mine.t == token and redis.call('HEXISTS', C, slot) == 0", "false"),
    ),
    "TAKE without doubled check": (
        Change("take", "if is_new and not known then return {'RETURN', 'doubled'} end", ""),
    ),
    "TAKE without surplus check": (
        Change(
            "take",
            "if is_new and participants >= math.min(want, most()) then",
            "if false then",
        ),
    ),
    "TAKE never yields": (Change("take", "tonumber(ARGV[6]) > redis.call('ZCARD', D)", "false"),),
    "TAKE does not heed the share": (Change("take", "participants > most()", "false"),),
    "TAKE does not heed new jobs": (
        Change("take", "tonumber(ARGV[10]) > 0 and state ~= 'INIT'", "false"),
    ),
    "TAKE yields by the clock although shares are laid down": (
        Change("take", "(head('allot') or '') == '' and ", ""),
    ),
    "SEND does not heed the share": (
        Change(
            "send",
            "math.min(number('want') - redis.call('HLEN', C), most())",
            "number('want') - redis.call('HLEN', C)",
        ),
    ),
    "nobody heeds the user's cap": (Change(EVERY_SCRIPT, "if cap <= 0 then", "if true then"),),
    "who joins is not booked": (
        Change(
            EVERY_SCRIPT,
            "if redis.call('ZADD', P, at, token) == 1 then book(redis.call('ZCARD', P) - 1) end",
            "redis.call('ZADD', P, at, token)",
        ),
    ),
    "who leaves is not booked": (
        Change(
            EVERY_SCRIPT,
            "if redis.call('ZREM', P, token) == 1 then book(redis.call('ZCARD', P) + 1) end",
            "redis.call('ZREM', P, token)",
        ),
    ),
    "the lost are not booked": (Change(EVERY_SCRIPT, "if lost > 0 then", "if false then"),),
    "nobody is booked at the end of a stage": (
        Change(EVERY_SCRIPT, "book(redis.call('ZCARD', P))\n", "\n"),
    ),
    "a clock that steps back takes worker time away": (
        Change(EVERY_SCRIPT, "math.max(0, at - since)", "(at - since)"),
    ),
    "BEAT books nobody": (
        Change("beat", "present(ARGV[2], at)", "redis.call('ZADD', P, at, ARGV[2])"),
    ),
    "CONTRIB books nobody": (
        Change("contrib", "present(ARGV[2], now())", "redis.call('ZADD', P, now(), ARGV[2])"),
    ),
    "TAKE copies at once": (Change("take", "left <= 0", "true"),),
    "TAKE copies unasked": (Change("take", "head('hedge') == '1'", "true"),),
    "TAKE copies although others wait": (
        Change("take", "head('hedge') == '1' and not is_wanted", "head('hedge') == '1'"),
    ),
    "TAKE gives copies of copies": (
        Change("take", "not (record.h and is_valid(record.h, at, length))", "true"),
    ),
    "a dead worker's copy is not promoted": (
        Change("take", "if record.h and is_valid(record.h, at, length) then", "if false then"),
    ),
    "CONTRIB takes no copies": (
        Change("contrib", "record.h and record.h.t == ARGV[2] and record.h", "false"),
    ),
    "KICK drops the copy with the slot": (
        Change("kick", "elseif record.h and kind ~= 'bad' then", "elseif false then"),
    ),
    "KICK of a copy drops the slot": (
        Change("kick", "if copy then\n  record.h = nil\nelseif", "if"),
    ),
    "TAKE does not count lost leases": (Change("take", "record.l = record.l + 1", "record.l = 0"),),
    "TAKE gives slots that are in": (
        Change("take", "if redis.call('HEXISTS', C, slot) == 1 then return nil end", ""),
    ),
    "leases outlive a clock that steps back": (
        Change(EVERY_SCRIPT, "at <= record.dl and record.dl <= at + length", "at <= record.dl"),
    ),
    "participants outlive a clock that steps back": (
        Change(
            EVERY_SCRIPT, "redis.call('ZREMRANGEBYSCORE', P, '(' .. (at + length), '+inf')", "0"
        ),
    ),
    "dead participants count": (
        Change(
            EVERY_SCRIPT, "redis.call('ZREMRANGEBYSCORE', P, '-inf', '(' .. (at - length))", "0"
        ),
    ),
    "BEAT without token check": (
        Change(
            "beat", "if not mine or mine.t ~= ARGV[2] then return {'LOST'} end", "mine = record"
        ),
    ),
    "BEAT without rid check": (
        Change("beat", "if head('rid') ~= ARGV[4] then return {'LOST'} end", ""),
    ),
    "KICK without id check": (
        Change("kick", "if not text or cjson.decode(text).cid ~= ARGV[4]", "if not text"),
        Change("kick", "elseif ARGV[4] == '' or record.t ~= ARGV[4] then", "elseif false then"),
    ),
    "KICK without rid check": (
        Change("kick", "if head('rid') ~= ARGV[2] then return {'STALE'} end", ""),
    ),
    "KICK counts drains": (
        Change("kick", "if kind ~= 'drain' then record.e", "if true then record.e"),
        Change("kick", "if kind ~= 'drain' and record.e", "if record.e"),
    ),
    "KICK does not count errors": (Change("kick", "record.e = record.e + 1", "record.e = 0"),),
    "PLAN is not compared": (
        Change(
            "plan",
            "if head('rid') ~= ARGV[2] or head('state') ~= 'PLAN'"
            " or number('epoch') + 1 ~= tonumber(ARGV[4]) then",
            "if false then",
        ),
    ),
    "PLAN keeps optimizer states of slots that went": (
        Change("plan", "if tonumber(slot) >= tonumber(ARGV[5]) then", "if false then"),
    ),
    "FINISH without rid check": (
        Change("finish", "if head('rid') ~= ARGV[2] then return {'STALE'} end", ""),
    ),
    "FINISH of an incomplete validation": (
        Change("finish", "redis.call('HLEN', C) < number('want')", "false"),
    ),
    "FINISH stops without being asked": (
        Change("finish", "to == 'STOPPED' and head('stop') ~= '1'", "false"),
    ),
    "INIT over a living job": (
        Change("init", "(current or '') ~= ARGV[2] or", "false or"),
        Change("init", "(current and tonumber(current) >= tonumber(ARGV[1]))", "false"),
    ),
    "INIT over a generation that nobody saw": (
        Change("init", "(current or '') ~= ARGV[2] or", "false or"),
    ),
    "INIT over a later generation": (
        Change("init", "(current and tonumber(current) >= tonumber(ARGV[1]))", "false"),
    ),
    "INIT over a job that has ended": (
        Change("init", "if ended and life <= number('life') then", "if false then"),
    ),
    "RETIRE of a living job": (
        Change("retire", "if not is_final(head('state')) then return {'ALIVE'} end", ""),
    ),
    "INIT forgets the wish to stop": (
        Change("init", "if stop then redis.call('HSET', H, 'stop', stop) end", ""),
    ),
    "SEND is never FULL": (
        Change(
            "send",
            "if live(at, number('lease_ms')) + outstanding >= open"
            " or outstanding >= tonumber(ARGV[3]) then",
            "if false then",
        ),
    ),
    "STOP after the end": (
        Change("stop", "if is_final(state) then return {'FINAL', state} end", ""),
    ),
    "SCALE after the end": (
        Change("scale", "if is_final(state) then return {'FINAL', state} end", ""),
    ),
    "SCALE in any order": (Change("scale", "tonumber(ARGV[2]) > number('scale')", "true"),),
    "PLAN forgets what is expected": (Change("plan", "'expected_s', ARGV[11],", ""),),
    "TAKE forgets when a slot was first begun": (
        Change("take", "record.b = record.b or record.a", "record.b = record.a"),
    ),
    "CONTRIB notes no time": (Change("contrib", "record.i = open_ms()", ""),),
    "ADVANCE does not open the next round": (
        Change("advance", "ARGV[3], 'opened', instant())", "ARGV[3])"),
    ),
    "ACQ from a living owner": (Change("acquire", "owner ~= ARGV[2] and at", "false and at"),),
}


def weakened(name: str) -> dict[str, str]:
    """All scripts, weakened in the way ``name`` says."""
    return altered(script_sources(), WEAKENINGS[name])


def altered(sources: Mapping[str, str], changes: tuple[Change, ...]) -> dict[str, str]:
    """The scripts with every change made.

    Raises:
        AssertionError: The text to replace is not there (any more): the change does nothing.
    """
    result = dict(sources)
    for change in changes:
        for script in result if change.script == EVERY_SCRIPT else [change.script]:
            count = result[script].count(change.old)
            assert count == 1, f"{change.old!r} is {count} times in {script}, expected once"
            result[script] = result[script].replace(change.old, change.new)
    return result


def clocked(sources: Mapping[str, str]) -> dict[str, str]:
    """The scripts with their time read from the job's key ``clock``, and nothing else changed."""
    result = {}
    for script, source in sources.items():
        result[script], count = _CLOCK.subn(lambda _: _SET_CLOCK, source)
        assert count == 1, f"instant() is {count} times in {script}"
    return result


def install(client: "Redis", sources: Mapping[str, str]) -> "Redis":
    """Make every RoundStore on this client run these scripts instead of the real ones."""
    client.__dict__["_kubeml_scripts"] = {
        name: client.register_script(source) for name, source in sources.items()
    }
    return client
