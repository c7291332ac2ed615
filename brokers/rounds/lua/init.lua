-- INIT(gen, seen, 'birth', uuid, field, value, ...): builds a job's head, if the generation there is
-- the one the caller saw ('' for none) and a lower one; over a job that has ended only for a later
-- life of it (it is resumed). Fields named o:SLOT are references to optimizer states. -> OK | EXISTS
local current = head('gen')
if current == ARGV[1] and head('birth') == ARGV[4] then
  return {'OK'}
end
if (current or '') ~= ARGV[2] or (current and tonumber(current) >= tonumber(ARGV[1])) then
  return {'EXISTS', current or ''}
end
local life = 0
for i = 3, #ARGV, 2 do
  if ARGV[i] == 'life' then life = tonumber(ARGV[i + 1]) end
end
local ended = current and is_final(head('state'))
if ended and life <= number('life') then return {'EXISTS', current} end
local stop = not ended and head('stop')
redis.call('DEL', H, S, C, P, D, O, G, K, L)
redis.call('PERSIST', X)
redis.call('HSET', H, 'gen', ARGV[1], 'since', now(), 'opened', instant())
-- Who asked a job to stop meant all of its generations.
if stop then redis.call('HSET', H, 'stop', stop) end
for i = 3, #ARGV, 2 do
  local slot = string.match(ARGV[i], '^o:(%d+)$')
  redis.call('HSET', slot and O or H, slot or ARGV[i], ARGV[i + 1])
end
bell()
return {'OK'}
