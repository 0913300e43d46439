-- Push lines and move the journal's position, together or not at all (compare-and-set).
-- KEYS: list, the journal's position, the queue's id
-- ARGV: expected position, new position, queue id the journal is bound to, lines...
-- Gives the position that is stored afterwards: the new one if the lines were pushed, else where the journal stands.
local id = redis.call('GET', KEYS[3])
if not id then
  redis.call('SET', KEYS[3], ARGV[3])
elseif id ~= ARGV[3] then
  return redis.error_reply('OTHERQUEUE this is queue ' .. id)
end
local stored = redis.call('GET', KEYS[2]) or '0'
if stored ~= ARGV[1] then
  return stored
end
-- Lines first: a refused RPUSH ends the script here, and nothing has moved.
if #ARGV > 3 then
  redis.call('RPUSH', KEYS[1], unpack(ARGV, 4))
end
redis.call('SET', KEYS[2], ARGV[2])
return ARGV[2]
