-- KICK(gen, rid, slot, id, kind, why): drops a bad contribution (id = cid, kind = bad) or a lease
-- (id = token, kind = error or drain). Errors are counted; too many fail the job.
-- -> OK errors | FAILED | NONE (id is not there) | STALE | GONE
if gone() then return {'GONE'} end
if head('rid') ~= ARGV[2] then return {'STALE'} end
local slot, kind = ARGV[3], ARGV[5]
local record = lease(slot)
local tried = record
local copy = record.h and ARGV[4] ~= '' and record.h.t == ARGV[4] and record.h
if kind == 'bad' then
  local text = redis.call('HGET', C, slot)
  if not text or cjson.decode(text).cid ~= ARGV[4] then return {'NONE'} end
  local handed_in = cjson.decode(text)
  tried = {n = record.n, t = handed_in.token, w = handed_in.worker}
  redis.call('HDEL', C, slot)
elseif copy then
  tried = {n = record.n, t = copy.t, w = copy.w}
elseif ARGV[4] == '' or record.t ~= ARGV[4] then
  return {'NONE'}
end
note_failed(slot, tried, kind, ARGV[6])
if copy then
  record.h = nil
elseif record.h and kind ~= 'bad' then
  promote(record)
else
  record.t, record.dl = '', 0
end
if kind ~= 'drain' then record.e = record.e + 1 end
put_lease(slot, record)
if kind ~= 'drain' and record.e >= number('max_errors') then
  close('FAILED', ARGV[6])
  return {'FAILED'}
end
bell()
return {'OK', tostring(record.e)}
