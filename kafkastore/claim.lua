#!lua flags=allow-oom
-- Take up to N lines into a batch with a random id, for the owner of the queue alone; or give the batch in flight.
-- KEYS: lease, list, lines in flight, batch in flight
-- ARGV: owner's token, id for a new batch, most lines, lease in ms
-- A full Redis lets it run: nothing else would ever make room.
-- Gives {batch id, lines...}, or {} when there is nothing to take.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER another process owns this queue')
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local id = redis.call('GET', KEYS[4])
local lines
if id then
  lines = redis.call('LRANGE', KEYS[3], 0, -1)
else
  lines = redis.call('LRANGE', KEYS[2], 0, tonumber(ARGV[3]) - 1)
  if #lines == 0 then
    return {}
  end
  id = ARGV[2]
  redis.call('DEL', KEYS[3])
  redis.call('RPUSH', KEYS[3], unpack(lines))
  redis.call('SET', KEYS[4], id)
  redis.call('LTRIM', KEYS[2], #lines, -1)
end
table.insert(lines, 1, id)
return lines
