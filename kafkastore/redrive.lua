-- Push dead letters' lines back and move their partition's mark, together or not at all (compare-and-set).
-- KEYS: list, hash of marks
-- ARGV: the partition, its mark as it is known (empty: none), its new mark, lines...
-- Gives the mark that is stored afterwards: the new one if the lines were pushed, else what another process made of it.
local stored = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if stored ~= ARGV[2] then
  return stored
end
-- Lines first: a refused RPUSH ends the script here, and nothing has moved.
if #ARGV > 3 then
  redis.call('RPUSH', KEYS[1], unpack(ARGV, 4))
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return ARGV[3]
