#!lua flags=allow-oom
-- Take up to N lines into a batch with a random id, for the owner of the queue alone; or give the batch in flight.
-- KEYS: lease, list, lines in flight, batch in flight (a hash: id, and where it is on its way to)
-- ARGV: owner's token, lease in ms, most lines, and for a new batch: id, Kafka's cluster id, prefix, delivery
-- A full Redis lets it run: nothing else would ever make room.
-- Gives {id, cluster id, prefix, delivery, lines...}, or {} when there is nothing to take.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER another process owns this queue')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local lines
if redis.call('EXISTS', KEYS[4]) == 1 then
  lines = redis.call('LRANGE', KEYS[3], 0, -1)
else
  lines = redis.call('LRANGE', KEYS[2], 0, tonumber(ARGV[3]) - 1)
  if #lines == 0 then
    return {}
  end
  redis.call('DEL', KEYS[3])
  redis.call('RPUSH', KEYS[3], unpack(lines))
  redis.call('HSET', KEYS[4], 'id', ARGV[4], 'cluster', ARGV[5], 'prefix', ARGV[6], 'delivery', ARGV[7])
  redis.call('LTRIM', KEYS[2], #lines, -1)
end
local answer = redis.call('HMGET', KEYS[4], 'id', 'cluster', 'prefix', 'delivery')
for _, line in ipairs(lines) do
  table.insert(answer, line)
end
return answer
