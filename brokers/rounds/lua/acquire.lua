-- ACQ(gen, owner, ttl ms): which parameter server looks after the job. An optimisation alone:
-- ADVANCE is a compare-and-swap, so two live owners are harmless. -> OK | BUSY | GONE
if gone() then return {'GONE'} end
local at, ttl = now(), tonumber(ARGV[3])
local owner, deadline = head('owner'), number('owner_dl')
if owner and owner ~= '' and owner ~= ARGV[2] and at <= deadline and deadline <= at + ttl then
  return {'BUSY', owner}
end
redis.call('HSET', H, 'owner', ARGV[2], 'owner_dl', at + ttl)
return {'OK'}
