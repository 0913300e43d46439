#!lua flags=allow-oom
-- Forget the batch in flight: it is in Kafka.
-- KEYS: lease, lines in flight, batch in flight, lines that Kafka could not take
-- ARGV: owner's token, batch id, such lines...
-- Gives 1 if it was forgotten now, 0 if it is not the one in flight.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER another process owns this queue')
end
if redis.call('GET', KEYS[3]) ~= ARGV[2] then
  return 0
end
for index = 3, #ARGV do
  redis.call('RPUSH', KEYS[4], ARGV[index])
end
redis.call('DEL', KEYS[2], KEYS[3])
return 1
