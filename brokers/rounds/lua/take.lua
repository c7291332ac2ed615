-- TAKE(gen, token, ticket, stage, preferred, queue length, held ms, idle ms, worker, first): what am I to do?
-- queue length: messages that wait for workers of this kind; first: those of jobs that have had none yet.
-- due: ms until there may be a copy of a slow slot to train (else '').
-- -> SLOT slot rid epoch round ver w slots attempt o l copy | WAIT bell complete due | RETURN why | END state | GONE
local STAGES = {INIT = 'init', RUN = 'train', VAL = 'validate'}
if gone() then return {'GONE'} end
local token, ticket = ARGV[2], ARGV[3]
local state = head('state')
local known = redis.call('ZREM', D, ticket) == 1
local seen = redis.call('ZSCORE', P, token)
local is_new = not seen
if STAGES[state] ~= ARGV[4] or head('stop') == '1' then
  leave(token)
  return {'END', state}
end

local at, length, want = now(), number('lease_ms'), number('want')
local participants = live(at, length)

-- The call may have waited behind the bell since it was sent: it was served or idle for longer.
local late = seen and math.min(math.max(at - tonumber(seen), 0), 2000) or 0

local function grant(slot, record, held)
  held.dl = at + length
  put_lease(slot, record)
  present(token, at)
  return {
    'SLOT', tostring(slot), head('rid'), head('epoch'), head('round'), head('ver'), head('w'),
    head('slots'), tostring(record.n), redis.call('HGET', O, slot) or '',
    redis.call('HGET', L, slot) or '',
    held == record and '' or '1',
  }
end

-- Its own slot first, so that a repeated call gets the same answer.
for slot = 0, want - 1 do
  local record = lease(slot)
  local mine = record.t == token and record or record.h
  if mine and mine.t == token and redis.call('HEXISTS', C, slot) == 0 then
    return grant(slot, record, mine)
  end
end

if is_new and not known then return {'RETURN', 'doubled'} end
if is_new and participants >= math.min(want, most()) then return {'RETURN', 'surplus'} end
-- There are more than the job is to have: its cap or its share of the pool has become smaller.
if not is_new and participants > most() then
  leave(token)
  return {'RETURN', 'share'}
end
-- Others wait for this worker: give it back at once to a job that has had none yet; else when it has
-- served for a while (unless shares are laid down), or has nothing to do.
local is_wanted = tonumber(ARGV[6]) > redis.call('ZCARD', D)
if not is_new and is_wanted and (tonumber(ARGV[10]) > 0 and state ~= 'INIT'
   or (head('allot') or '') == '' and tonumber(ARGV[7]) + late >= 2000
   or tonumber(ARGV[8]) + late >= 500) then
  leave(token)
  return {'RETURN', 'yield'}
end

local function try(slot)
  if redis.call('HEXISTS', C, slot) == 1 then return nil end
  local record = lease(slot)
  if is_valid(record, at, length) then return nil end
  if record.t ~= '' then
    note_failed(slot, record, 'lost', 'its lease ran out: the worker died, hung or was cut off')
    record.l = record.l + 1
    if record.l >= number('max_lost') then
      close('FAILED', 'slot ' .. slot .. ' was lost ' .. record.l
        .. ' times in one round: its workers died or hung')
      return {'END', 'FAILED'}
    end
    if record.h and is_valid(record.h, at, length) then
      promote(record)
      put_lease(slot, record)
      return nil
    end
  end
  record.h = nil
  record.n = record.n + 1
  if record.n > 1 then redis.call('HINCRBY', H, 'retries', 1) end
  record.t, record.at, record.w = token, at, ARGV[9]
  record.a = open_ms()
  record.b = record.b or record.a
  return grant(slot, record, record)
end

for text in string.gmatch(ARGV[5], '%d+') do
  local slot = tonumber(text)
  local answer = slot < want and try(slot)
  if answer then return answer end
end
for slot = 0, want - 1 do
  local answer = try(slot)
  if answer then return answer end
end

-- Nothing is left but to wait: train a copy of the slot that runs longest, once that is half as long again
-- as any of the others took. (Backup tasks: Dean and Ghemawat, MapReduce, OSDI 2004; the factor is Spark's
-- speculation.multiplier.) -> slot, ms until it has run that long
local function slowest()
  local open, usual, found, longest = open_ms(), -1, nil, 0
  for slot = 0, want - 1 do
    local record = lease(slot)
    if redis.call('HEXISTS', C, slot) == 1 then
      usual = math.max(usual, (record.i or 0) - (record.a or 0))
    elseif record.a and is_valid(record, at, length) and not (record.h and is_valid(record.h, at, length))
       and open - record.a > longest then
      found, longest = slot, open - record.a
    end
  end
  if usual < 0 or not found then return nil end
  return found, math.ceil(math.max(1000, 1.5 * usual) - longest)
end

local due = ''
if head('hedge') == '1' and not is_wanted then
  local slot, left = slowest()
  if slot and left > 0 then due = tostring(left) end
  if slot and left <= 0 then
    local record = lease(slot)
    record.h = {t = token, w = ARGV[9], a = open_ms()}
    redis.call('HINCRBY', H, 'copies', 1)
    return grant(slot, record, record.h)
  end
end

present(token, at)
return {'WAIT', last_bell(), redis.call('HLEN', C) >= want and '1' or '0', due}
