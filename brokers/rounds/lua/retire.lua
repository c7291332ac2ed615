-- RETIRE(gen, seconds): forgets the working state of a job that has ended at once, and its head after
-- a while. Nothing of a later generation is touched: it may have been resumed. -> OK | ALIVE | GONE
if gone() then return {'GONE'} end
if not is_final(head('state')) then return {'ALIVE'} end
redis.call('DEL', S, C, P, D, O, G, K, L)
redis.call('EXPIRE', H, ARGV[2])
redis.call('EXPIRE', X, ARGV[2])
return {'OK'}
