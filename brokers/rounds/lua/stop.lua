-- STOP(gen): asks the job to end; workers drop what they have in hand. -> OK | FINAL state | GONE
if gone() then return {'GONE'} end
local state = head('state')
if is_final(state) then return {'FINAL', state} end
redis.call('HSET', H, 'stop', '1')
bell()
return {'OK'}
