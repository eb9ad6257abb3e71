-- Keeps what each key's last ban or unban was, for proxies that come later, and tells it to those that are here.
--
-- KEYS: a hash of records, a sorted set of when each may be forgotten, a mark that dies with this server's data.
-- Both end by themselves with the last that may be forgotten.

local records, ends, mark = KEYS[1], KEYS[2], KEYS[3]
local operation = ARGV[1]

if operation == 'page' then
    -- ARGV: cursor, records in a page. One string, in lines: the next cursor, records.
    local found = redis.call('HSCAN', records, ARGV[2], 'COUNT', ARGV[3])
    local lines = {found[1]}
    for i = 2, #found[2], 2 do
        lines[#lines + 1] = found[2][i]
    end
    return table.concat(lines, '\n')
end

if operation == 'mark' then
    -- ARGV: a mark to set if there is none, its seconds. Returns the one that is there.
    redis.call('SET', mark, ARGV[2], 'NX')
    redis.call('EXPIRE', mark, ARGV[3])
    return redis.call('GET', mark)
end

-- ARGV: put, key, record, when to forget it, now, most records, channel, message, seconds until to forget it.
local name, record, forget, now, most = ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local function drop(names)
    if #names > 0 then
        redis.call('HDEL', records, unpack(names))
        redis.call('ZREM', ends, unpack(names))
    end
end
drop(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 64))
redis.call('HSET', records, name, record)
redis.call('ZADD', ends, forget, name)
local over = redis.call('ZCARD', ends) - most
if over > 0 then
    drop(redis.call('ZRANGE', ends, 0, math.min(over, 64) - 1))
end
for _, each in ipairs({records, ends}) do
    redis.call('EXPIRE', each, math.max(tonumber(ARGV[9]), redis.call('TTL', each)))
end
for i = 4, #KEYS do
    redis.call('DEL', KEYS[i])
end
return redis.call('PUBLISH', ARGV[7], ARGV[8])
