-- CONTRIB(gen, token, rid, slot, cid, contribution): hands in a slot's work. KEYS[11...] are the chunks
-- that were sent along with it.
-- -> OK how-many of-how-many bell | STALE | DUPLICATE | LOST | MISSING chunk | GONE
-- bell: where it stands, if there is nothing else to do before it rings (else ''): every slot is in, or
-- there is a participant for each.
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
  for i = 11, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 0 then return {'MISSING', KEYS[i]} end
  end
  -- An expired lease that nobody has taken over still belongs to its token.
  local copy = record.h and record.h.t == ARGV[2] and record.h
  if record.t ~= ARGV[2] and not copy then return {'LOST'} end
  redis.call('HSET', C, slot, ARGV[6])
  -- The first one counts, be it the copy; the other is LOST.
  if copy then record.a, record.w = copy.a, copy.w end
  record.t, record.dl, record.h = '', 0, nil
  record.i = open_ms()
  put_lease(slot, record)
  present(ARGV[2], now())
  -- A parameter server waits here: quicker than a message, and as dispensable.
  redis.call('XADD', K, 'MAXLEN', '~', 64, '*', 'left', want - redis.call('HLEN', C), 'chunk', KEYS[11] or '')
end
local there_are = redis.call('HLEN', C)
local is_served = there_are >= want or redis.call('ZCARD', P) >= want
return {'OK', tostring(there_are), tostring(want), is_served and last_bell() or ''}
