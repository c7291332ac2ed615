-- PLAN(gen, rid, rid', epoch, slots, rounds, want, last want, validation slots, decision, expected s):
-- PLAN -> RUN. -> OK | STALE | GONE
if gone() then return {'GONE'} end
if head('rid') == ARGV[3] then return {'OK'} end
if head('rid') ~= ARGV[2] or head('state') ~= 'PLAN' or number('epoch') + 1 ~= tonumber(ARGV[4]) then
  return {'STALE'}
end
clear_stage()
redis.call('DEL', G)
-- Optimizer states of slots that no longer exist must not come back when N grows again.
for _, slot in ipairs(redis.call('HKEYS', O)) do
  if tonumber(slot) >= tonumber(ARGV[5]) then redis.call('HDEL', O, slot) end
end
local at = now()
redis.call('HSET', H, 'state', 'RUN', 'rid', ARGV[3], 'epoch', ARGV[4], 'round', 0,
  'slots', ARGV[5], 'rounds', ARGV[6], 'want', ARGV[7], 'last_want', ARGV[8],
  'vslots', ARGV[9], 'decision', ARGV[10], 'expected_s', ARGV[11], 'retries', 0, 'failed', 0, 'since', at, 'planned_at', at,
  'planning_ms', at - number('since'), 'opened', instant())
bell()
return {'OK'}
