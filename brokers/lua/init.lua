-- INIT(gen, seen, 'birth', uuid, field, value, ...): builds a job's head, if the generation there is
-- the one the caller saw ('' for none) and a lower one. Fields named o:SLOT are references to
-- optimizer states. -> OK | EXISTS
local current = head('gen')
if current == ARGV[1] and head('birth') == ARGV[4] then
  return {'OK'}
end
if (current or '') ~= ARGV[2] or (current and tonumber(current) >= tonumber(ARGV[1])) then
  return {'EXISTS', current or ''}
end
local stop = head('stop')
redis.call('DEL', H, S, C, P, D, O, G)
redis.call('HSET', H, 'gen', ARGV[1], 'since', now())
-- Who asked a job to stop meant all of its generations.
if stop then redis.call('HSET', H, 'stop', stop) end
for i = 3, #ARGV, 2 do
  local slot = string.match(ARGV[i], '^o:(%d+)$')
  redis.call('HSET', slot and O or H, slot or ARGV[i], ARGV[i + 1])
end
bell()
return {'OK'}
