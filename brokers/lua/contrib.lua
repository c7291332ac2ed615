-- CONTRIB(gen, token, rid, slot, cid, contribution): hands in a slot's work.
-- -> OK how-many of-how-many bell-if-that-is-all | STALE | DUPLICATE | LOST | GONE
if gone() then return {'GONE'} end
if head('rid') ~= ARGV[3] then return {'STALE'} end
if #ARGV[6] > 100000 then return {'LOST'} end
local ok, handed_in = pcall(cjson.decode, ARGV[6])
if not ok or type(handed_in) ~= 'table' or handed_in.cid ~= ARGV[5] then return {'LOST'} end
local slot, want = ARGV[4], number('want')
local there = redis.call('HGET', C, slot)
if there then
  if cjson.decode(there).cid ~= ARGV[5] then return {'DUPLICATE'} end
else
  local record = lease(slot)
  -- An expired lease that nobody has taken over still belongs to its token.
  if record.t ~= ARGV[2] then return {'LOST'} end
  redis.call('HSET', C, slot, ARGV[6])
  record.t, record.dl = '', 0
  record.i = open_ms()
  put_lease(slot, record)
  redis.call('ZADD', P, now(), ARGV[2])
  -- A parameter server waits here: quicker than a message, and as dispensable.
  redis.call('XADD', K, 'MAXLEN', '~', 16, '*', 'left', want - redis.call('HLEN', C))
end
local there_are = redis.call('HLEN', C)
return {'OK', tostring(there_are), tostring(want), there_are >= want and last_bell() or ''}
