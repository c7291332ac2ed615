-- BEAT(gen, token, slot, rid): renews the lease. -> OK | LOST | STOP | GONE
if gone() then return {'GONE'} end
if head('stop') == '1' or is_final(head('state')) then return {'STOP'} end
if head('rid') ~= ARGV[4] then return {'LOST'} end
local record = lease(ARGV[3])
local mine = record.t == ARGV[2] and record or record.h
if not mine or mine.t ~= ARGV[2] then return {'LOST'} end
local at = now()
mine.dl = at + number('lease_ms')
put_lease(ARGV[3], record)
present(ARGV[2], at)
return {'OK'}
