-- FINISH(gen, rid, rid', to, reason): END or a complete VAL -> PLAN or DONE; anything alive -> STOPPED
-- (if asked to stop) or FAILED. -> OK | STALE | MORE | GONE
if gone() then return {'GONE'} end
local state, to = head('state'), ARGV[4]
if to == 'PLAN' and head('rid') == ARGV[3] then return {'OK'} end
if is_final(state) then return {state == to and 'OK' or 'STALE'} end
if head('rid') ~= ARGV[2] then return {'STALE'} end
if to == 'PLAN' or to == 'DONE' then
  if state == 'VAL' and redis.call('HLEN', C) < number('want') then return {'MORE'} end
  if state ~= 'VAL' and state ~= 'END' then return {'STALE'} end
elseif to == 'STOPPED' and head('stop') ~= '1' then
  return {'STALE'}
end
if to == 'PLAN' then
  clear_stage()
  redis.call('HSET', H, 'state', 'PLAN', 'rid', ARGV[3], 'since', now())
  bell()
else
  close(to, ARGV[5])
end
return {'OK'}
