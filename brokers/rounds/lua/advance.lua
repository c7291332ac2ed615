-- ADVANCE(gen, rid, rid', w', m', cids, ledger): commits a merge, the only way to a new version.
-- KEYS[11...] are the staged chunks of w' and of m' (the outer optimizer's state, or ''); cids are
-- those merged, comma-separated in slot order.
-- Notes beside the ledger when the round was opened (server ms) and, in ms since then, when it was
-- merged and when each slot was begun at first, begun by the one whose work counts, and in (-1: not
-- known): [opened, merged, [[begun, taken, in], ...]].
-- -> OK state | STALE | MORE | CHANGED | MISSING | GONE
local function timing(want)
  local slots = {}
  for slot = 0, want - 1 do
    local record = lease(slot)
    slots[slot + 1] = string.format('[%.3f,%.3f,%.3f]', record.b or -1, record.a or -1, record.i or -1)
  end
  return string.format('[%.3f,%.3f,[%s]]', number('opened'), open_ms(), table.concat(slots, ','))
end

if gone() then return {'GONE'} end
local state = head('state')
-- Or by w': a repeated call may come after FINISH or PLAN, and who hears STALE drops what it staged.
if head('rid') == ARGV[3] or head('w') == ARGV[4] then return {'OK', state} end
if head('rid') ~= ARGV[2] or not (state == 'RUN' or state == 'INIT') then return {'STALE'} end
local want = number('want')
if redis.call('HLEN', C) < want then return {'MORE'} end
local cids, states, trained = {}, {}, {}
for slot = 0, want - 1 do
  local text = redis.call('HGET', C, slot)
  if not text then return {'MORE'} end
  local contribution = cjson.decode(text)
  cids[#cids + 1] = contribution.cid
  if type(contribution.optimizer) == 'string' and contribution.optimizer ~= '' then
    states[slot] = contribution.optimizer
  end
  trained[slot] = tostring(contribution.tensors)
end
if table.concat(cids, ',') ~= ARGV[6] then return {'CHANGED'} end
for i = 11, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return {'MISSING', KEYS[i]} end
end

if state == 'RUN' then redis.call('HSET', G, 't' .. head('round'), timing(want)) end
for slot, reference in pairs(states) do redis.call('HSET', O, slot, reference) end
redis.call('HINCRBY', H, 'ver', 1)
redis.call('HSET', H, 'w', ARGV[4], 'm', ARGV[5], 'rid', ARGV[3], 'opened', instant())
redis.call('DEL', S, C, L)
if state == 'INIT' then
  clear_stage()
  redis.call('HSET', H, 'state', 'PLAN', 'since', now())
else
  redis.call('HSET', G, head('round'), ARGV[7])
  local round, rounds = redis.call('HINCRBY', H, 'round', 1), number('rounds')
  if round < rounds then
    redis.call('HSET', H, 'want', round == rounds - 1 and head('last_want') or head('slots'))
    if head('overlap') == '1' then
      for slot, reference in pairs(trained) do redis.call('HSET', L, slot, reference) end
    end
  else
    clear_stage()
    local at, vslots = now(), number('vslots')
    redis.call('HSET', H, 'state', vslots > 0 and 'VAL' or 'END', 'want', vslots,
      'since', at, 'trained_ms', at - number('planned_at'))
  end
end
bell()
return {'OK', head('state')}
