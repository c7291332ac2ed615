-- SEND(gen, ticket, burst): may a dispatch be sent? Records its ticket.
-- -> OK | FULL | IDLE (no stage under way) | GONE
if gone() then return {'GONE'} end
local state = head('state')
if head('stop') == '1' or not (state == 'INIT' or state == 'RUN' or state == 'VAL') then
  return {'IDLE'}
end
if redis.call('ZSCORE', D, ARGV[2]) then return {'OK'} end
local at = now()
local open = math.min(number('want') - redis.call('HLEN', C), most())
local outstanding = redis.call('ZCARD', D)
if live(at, number('lease_ms')) + outstanding >= open or outstanding >= tonumber(ARGV[3]) then
  return {'FULL'}
end
redis.call('ZADD', D, at, ARGV[2])
return {'OK'}
