-- Shared by every script: Python puts this file in front of each.
--
-- Keys of one job (all under one hash tag, so one cluster slot):
--   KEYS[1] h  hash    head: gen state epoch round rounds rid ver w slots want last_want vslots overlap
--                      stop reason scale floor ceiling max_workers used_ms (worker time) ...
--   KEYS[2] s  hash    slot -> lease {t token, dl deadline ms, at start ms, n attempt, e errors, l lost;
--                      and in ms since the round was opened: b begun at first, a by this one, i in;
--                      h: a second lease {t, dl, w, a}: somebody trains a copy, in case it is sooner}
--   KEYS[3] c  hash    slot -> contribution {cid, token, ...}
--   KEYS[4] p  zset    token -> last seen ms: live participants
--   KEYS[5] d  zset    ticket -> ms: dispatches not yet answered
--   KEYS[6] o  hash    slot -> reference to its optimizer state
--   KEYS[7] x  stream  bell
--   KEYS[8] g  hash    round -> what was merged; tROUND -> when (see advance.lua); fN -> an attempt that
--                      failed (the epoch's ledger)
--   KEYS[9] k  stream  knock: the bell of parameter servers
--   KEYS[10] l hash    slot -> reference to its local weights: what it contributed to the last merge of
--                      this epoch, and goes on from (jobs with overlap alone)
-- ARGV[1] is always the caller's generation. Decisions are made here, by the server's clock alone;
-- every script may be called twice with the same arguments (clients re-send after a lost reply).
local H, S, C, P, D, O, X, G, K, L =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]

-- The server's clock in ms, with their fractions: what timings are noted by.
local function instant()
  local t = redis.call('TIME')
  return t[1] * 1000 + t[2] / 1000
end

-- In whole ms: what everything is decided by.
local function now()
  return math.floor(instant())
end

local function head(field)
  return redis.call('HGET', H, field)
end

local function number(field)
  return tonumber(head(field) or '0') or 0
end

-- How long the round has been open.
local function open_ms()
  return instant() - number('opened')
end

local function gone()
  return head('gen') ~= ARGV[1]
end

local function is_final(state)
  return state == 'DONE' or state == 'FAILED' or state == 'STOPPED'
end

local function bell()
  redis.call('XADD', X, 'MAXLEN', '~', 16, '*', 'r', head('rid') or '')
end

local function last_bell()
  local last = redis.call('XREVRANGE', X, '+', '-', 'COUNT', 1)
  return last[1] and last[1][1] or '0-0'
end

local function lease(slot)
  local text = redis.call('HGET', S, slot)
  return text and cjson.decode(text) or {t = '', dl = 0, at = 0, n = 0, e = 0, l = 0}
end

local function put_lease(slot, record)
  redis.call('HSET', S, slot, cjson.encode(record))
end

-- A deadline too far ahead means that the clock stepped back: such a lease must not be eternal.
local function is_valid(record, at, length)
  return record.t ~= '' and at <= record.dl and record.dl <= at + length
end

-- So many participants were there until now: adds what they had since the last such change to the job's
-- worker time, by which pools are shared.
local function book(participants)
  local at = now()
  local since = tonumber(head('used_at') or '') or at
  redis.call('HINCRBY', H, 'used_ms', participants * math.max(0, at - since))
  redis.call('HSET', H, 'used_at', at)
end

-- A participant is there, as one of those before or as a new one.
local function present(token, at)
  if redis.call('ZADD', P, at, token) == 1 then book(redis.call('ZCARD', P) - 1) end
end

local function leave(token)
  if redis.call('ZREM', P, token) == 1 then book(redis.call('ZCARD', P) + 1) end
end

-- Participants that were not seen for a lease (or "in the future", after a clock step) are gone.
local function live(at, length)
  local lost = redis.call('ZREMRANGEBYSCORE', P, '-inf', '(' .. (at - length))
    + redis.call('ZREMRANGEBYSCORE', P, '(' .. (at + length), '+inf')
  local there = redis.call('ZCARD', P)
  if lost > 0 then book(there + lost) end
  return there
end

-- Whoever trains a copy of the slot has it now: the first one has given it up, or died.
local function promote(record)
  local copy = record.h
  record.t, record.dl, record.w, record.a, record.h = copy.t, copy.dl, copy.w, copy.a, nil
  record.at, record.n = now(), record.n + 1
  redis.call('HINCRBY', H, 'retries', 1)
end

-- How many may take part, whatever there is to do: the user's cap, and the job's share of the pool.
local function most()
  local cap, share = number('max_workers'), head('allot')
  if cap <= 0 then cap = math.huge end
  if share and share ~= '' then cap = math.min(cap, tonumber(share)) end
  return cap
end

-- At most so many bytes of a text, up to the end of a character: half of one is no text any more.
local function cut(text, most)
  if #text <= most then return text end
  -- Bytes from 128 to 191 go on with a character.
  while most > 0 and string.find(text, '^[\128-\191]', most + 1) do most = most - 1 end
  return string.sub(text, 1, most)
end

-- An attempt that came to nothing, for the ledger; bounded, since reasons can be long.
local function note_failed(slot, record, kind, why)
  local n = redis.call('HINCRBY', H, 'failed', 1)
  if n > 500 then return end
  redis.call('HSET', G, 'f' .. n, cjson.encode({
    round = number('round'), slot = tonumber(slot), stage = head('state'), attempt = record.n,
    token = tostring(record.t or ''), worker = tostring(record.w or ''), kind = kind, why = cut(why, 2000),
    at = now(),
  }))
end

-- A change of stage: whoever took part in the last one is asked anew, and begins with the merged weights.
local function clear_stage()
  book(redis.call('ZCARD', P))
  redis.call('DEL', S, C, P, D, L)
end

local function close(state, reason)
  clear_stage()
  redis.call('HSET', H, 'state', state, 'rid', '', 'reason', reason, 'since', now())
  bell()
end
