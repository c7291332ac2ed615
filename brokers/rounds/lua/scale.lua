-- SCALE(gen, number, floor, ceiling, max workers): between what N may be from the next epoch on, and how
-- many workers may take part from now on (0: any). Who comes with a lower number is late: it changes
-- nothing. -> OK | FINAL state | GONE
if gone() then return {'GONE'} end
local state = head('state')
if is_final(state) then return {'FINAL', state} end
if tonumber(ARGV[2]) > number('scale') then
  redis.call('HSET', H, 'scale', ARGV[2], 'floor', ARGV[3], 'ceiling', ARGV[4], 'max_workers', ARGV[5])
  bell()
end
return {'OK'}
