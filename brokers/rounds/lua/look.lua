-- LOOK(''): the job's live state in one answer; it changes nothing.
-- -> ms head contributions participants tickets optimizer local
return {
  string.format('%.0f', now()), redis.call('HGETALL', H), redis.call('HGETALL', C),
  redis.call('ZRANGE', P, 0, -1, 'WITHSCORES'), redis.call('ZRANGE', D, 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', O), redis.call('HGETALL', L),
}
