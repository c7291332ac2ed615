-- SHARE(gen, allot, credit, lean, at, used): how many workers the job is to have for now ('' for any number),
-- and the books by which that is decided, when they were made and what the worker time came to then; see
-- kubeml/pool/fair_share.py. -> OK | FINAL | GONE
if gone() then return {'GONE'} end
if is_final(head('state')) then return {'FINAL'} end
local is_less = ARGV[2] ~= '' and tonumber(ARGV[2]) < (tonumber(head('allot') or '') or math.huge)
redis.call('HSET', H, 'allot', ARGV[2], 'credit', ARGV[3], 'lean', ARGV[4], 'books_at', ARGV[5], 'books_used_ms', ARGV[6])
-- Who waits for others is to hear of it too.
if is_less then bell() end
return {'OK'}
