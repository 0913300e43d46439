#!lua flags=allow-oom
-- Forget the batch in flight: it is in Kafka.
-- KEYS: lease, lines in flight, batch in flight, lines that Kafka takes in no form, last batches forgotten (a hash)
-- ARGV: owner's token, batch id, the place whose checkpoint it is (empty: none's), lines that Kafka does not take...
-- Gives 1 if it was forgotten now, 0 if it is not the one in flight.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER another process owns this queue')
end
if redis.call('HGET', KEYS[3], 'id') ~= ARGV[2] then
  return 0
end
for index = 4, #ARGV do
  redis.call('RPUSH', KEYS[4], ARGV[index])
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[5], ARGV[3], ARGV[2])
end
redis.call('DEL', KEYS[2], KEYS[3])
return 1
