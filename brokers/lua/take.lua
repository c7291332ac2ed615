-- TAKE(gen, token, ticket, stage, preferred, queue length, held ms, idle ms, worker): what am I to do?
-- -> SLOT slot rid epoch round ver w slots attempt o l | WAIT bell complete | RETURN why | END state | GONE
local STAGES = {INIT = 'init', RUN = 'train', VAL = 'validate'}
if gone() then return {'GONE'} end
local token, ticket = ARGV[2], ARGV[3]
local state = head('state')
local known = redis.call('ZREM', D, ticket) == 1
local seen = redis.call('ZSCORE', P, token)
local is_new = not seen
if STAGES[state] ~= ARGV[4] or head('stop') == '1' then
  redis.call('ZREM', P, token)
  return {'END', state}
end

local at, length, want = now(), number('lease_ms'), number('want')
local participants = live(at, length)

-- The call may have waited behind the bell since it was sent: it was served or idle for longer.
local late = seen and math.min(math.max(at - tonumber(seen), 0), 2000) or 0

local function grant(slot, record)
  record.dl = at + length
  put_lease(slot, record)
  redis.call('ZADD', P, at, token)
  return {
    'SLOT', tostring(slot), head('rid'), head('epoch'), head('round'), head('ver'), head('w'),
    head('slots'), tostring(record.n), redis.call('HGET', O, slot) or '',
    redis.call('HGET', L, slot) or '',
  }
end

-- Its own slot first, so that a repeated call gets the same answer.
for slot = 0, want - 1 do
  local record = lease(slot)
  if record.t == token and redis.call('HEXISTS', C, slot) == 0 then
    return grant(slot, record)
  end
end

if is_new and not known then return {'RETURN', 'doubled'} end
if is_new and participants >= want then return {'RETURN', 'surplus'} end
-- Others wait for this worker: give it back once it has served for a while, or has nothing to do.
if not is_new and tonumber(ARGV[6]) > redis.call('ZCARD', D)
   and (tonumber(ARGV[7]) + late >= 2000 or tonumber(ARGV[8]) + late >= 500) then
  redis.call('ZREM', P, token)
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
  end
  record.n = record.n + 1
  if record.n > 1 then redis.call('HINCRBY', H, 'retries', 1) end
  record.t, record.at, record.w = token, at, ARGV[9]
  record.a = open_ms()
  record.b = record.b or record.a
  return grant(slot, record)
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

redis.call('ZADD', P, at, token)
return {'WAIT', last_bell(), redis.call('HLEN', C) >= want and '1' or '0'}
