-- Charges or settles one login: all that one decision reads and writes, in one call.
--
-- A count has two keys. The first holds what counts, the second what waits for a mail server's answer: that
-- ends by itself, since a proxy that was killed will not take it back. A plain count has hashes of buckets, a
-- distinct one has sorted sets of members by the time they were last seen.
--
-- ARGV is one string of words, which is cheaper than many: operation, now, seconds that an answer may take, parts
-- of a window, then what the operation takes. The member of a plain count is "-".
-- Replies are integers only; the proxy knows how many.

local keys, text = 0, string.gmatch(ARGV[1], '%S+')

local function key()
    keys = keys + 1
    return KEYS[keys]
end

local function number()
    return tonumber(text())
end

local operation, now, patience, parts = text(), number(), number(), number()

-- Lua's own way to write a number drops digits of a time.
local function exactly(value)
    return string.format('%.17g', value)
end

local function bucket(seconds, at)
    return math.floor(at * parts / seconds)
end

local function expire(name, seconds)
    redis.call('PEXPIRE', name, math.ceil(seconds * (parts + 1) / parts * 1000) + 1000)
end

local function charge()
    local c = {kept = key(), waiting = key(), member = text(), enforced = text() == '1'}
    c.waived = text() == '1'
    c.windows, c.longest, c.bound = {}, 0, 0
    for i = 1, number() do
        local window = {seconds = number(), limit = number()}
        c.windows[i] = window
        window.life = math.min(patience, window.seconds)
        if window.seconds > c.longest then
            c.longest, c.index = window.seconds, i
        end
        c.bound = math.max(c.bound, window.limit)
    end
    -- One more, so that a limit is seen to be exceeded.
    c.bound = c.bound + 1
    c.life = math.min(patience, c.longest)
    return c
end

local function charges()
    local all = {}
    for i = 1, number() do
        all[i] = charge()
    end
    return all
end

-- Plain counts -------------------------------------------------------------------------------------------

local plain = {}

-- Adds up the buckets of each window, where it looks back so many seconds, and forgets those that are older.
local function buckets(name, windows, seconds)
    local counts = {}
    for i in ipairs(windows) do
        counts[i] = 0
    end
    local found = redis.call('HGETALL', name)
    for i = 1, #found, 2 do
        local index, which = string.match(found[i], '^(%d+):(.+)$')
        local window = windows[tonumber(index)]
        if not window or tonumber(which) < bucket(window[seconds], now) - parts then
            redis.call('HDEL', name, found[i])
        else
            counts[tonumber(index)] = counts[tonumber(index)] + tonumber(found[i + 1])
        end
    end
    return counts
end

local function change(name, windows, seconds, at, amount)
    for i, window in ipairs(windows) do
        local field = i .. ':' .. string.format('%.0f', bucket(window[seconds], at))
        if redis.call('HINCRBY', name, field, amount) <= 0 then
            redis.call('HDEL', name, field)
        end
    end
end

function plain.counts(c, more)
    local counts, waiting = buckets(c.kept, c.windows, 'seconds'), buckets(c.waiting, c.windows, 'life')
    for i in ipairs(counts) do
        counts[i] = counts[i] + waiting[i] + more
    end
    return waiting[c.index] + more, counts
end

function plain.wait(c, at)
    change(c.waiting, c.windows, 'life', at, 1)
    expire(c.waiting, c.life)
end

function plain.add(c, at)
    change(c.kept, c.windows, 'seconds', at, 1)
    expire(c.kept, c.longest)
end

function plain.refund(c, at)
    change(c.waiting, c.windows, 'life', at, -1)
end

function plain.keep(c, at)
    -- If nothing waits, it was charged while this server was away, or cleared: it counts all the same.
    plain.refund(c, at)
    plain.add(c, at)
end

-- Counts of different members ----------------------------------------------------------------------------

local distinct = {}

function distinct.counts(c, more)
    redis.call('ZREMRANGEBYSCORE', c.kept, '-inf', exactly(now - c.longest))
    redis.call('ZREMRANGEBYSCORE', c.waiting, '-inf', exactly(now - c.life))
    local kept, waits = redis.call('ZSCORE', c.kept, c.member), redis.call('ZSCORE', c.waiting, c.member)
    local seen = tonumber(kept or waits or nil)
    local counts = {}
    for i, window in ipairs(c.windows) do
        local since = '(' .. exactly(now - window.seconds)
        counts[i] = redis.call('ZCOUNT', c.kept, since, '+inf') + redis.call('ZCOUNT', c.waiting, since, '+inf')
        if more > 0 and not (seen and seen > now - window.seconds) then
            counts[i] = counts[i] + 1
        end
    end
    local pending = redis.call('ZCARD', c.waiting)
    if more > 0 and not seen then
        pending = pending + 1
    end
    return pending, counts
end

local function oldest(name)
    local found = redis.call('ZRANGE', name, 0, 0, 'WITHSCORES')
    return found[1], tonumber(found[2] or 'inf')
end

-- Of more members than any limit asks for, those not seen for longest go.
local function make_room(c)
    if redis.call('ZSCORE', c.kept, c.member) or redis.call('ZSCORE', c.waiting, c.member) then
        return
    end
    while redis.call('ZCARD', c.kept) + redis.call('ZCARD', c.waiting) >= c.bound do
        local kept, kept_at = oldest(c.kept)
        local waits, waits_at = oldest(c.waiting)
        if kept and kept_at <= waits_at then
            redis.call('ZREM', c.kept, kept)
        else
            redis.call('ZREM', c.waiting, waits)
        end
    end
end

function distinct.wait(c, at)
    make_room(c)
    local failed_before = redis.call('ZSCORE', c.kept, c.member)
    local name = failed_before and c.kept or c.waiting
    redis.call('ZADD', name, 'GT', exactly(at), c.member)
    expire(name, failed_before and c.longest or c.life)
end

function distinct.keep(c, at)
    make_room(c)
    local waits = redis.call('ZSCORE', c.waiting, c.member)
    if waits then
        redis.call('ZREM', c.waiting, c.member)
        at = math.max(at, tonumber(waits))
    end
    redis.call('ZADD', c.kept, 'GT', exactly(at), c.member)
    expire(c.kept, c.longest)
end

distinct.add = distinct.keep

function distinct.refund(c, at)
    redis.call('ZREM', c.waiting, c.member)
end

-- Both ---------------------------------------------------------------------------------------------------

local function make(c)
    return c.member == '-' and plain or distinct
end

local reply = {}

local function tell(c, more)
    local pending, counts = make(c).counts(c, more)
    reply[#reply + 1] = pending
    for _, count in ipairs(counts) do
        reply[#reply + 1] = count
    end
    return counts
end

local function mark(name, seconds)
    redis.call('SET', name, exactly(now + seconds), 'PX', math.ceil(seconds * 1000) + 1000)
end

-- Seconds that a mark has left. What the proxy knows of it is put back if this server has lost it; the second
-- between is what rounding may have added there.
local function left()
    local name, known = key(), number()
    local ends = redis.call('GET', name)
    local seconds = ends and math.max(0, math.ceil(tonumber(ends) - now)) or 0
    if known > seconds + 1 then
        mark(name, known)
        seconds = math.ceil(known)
    end
    return seconds
end

local function exceeded(c, counts)
    for i, window in ipairs(c.windows) do
        if counts[i] > window.limit then
            return true
        end
    end
    return false
end

if operation == 'attempt' then
    -- welcome, repeats, refused, and for each charge: pending, counts
    reply = {0, 0, 0}
    if text() == '1' then
        reply[1] = left()
    end
    if text() == '1' then
        local repeated = charge()
        local _, counts = make(repeated).counts(repeated, 0)
        reply[2] = counts[1]
        if counts[1] > 0 then
            return reply
        end
    end
    local all = charges()
    for _, c in ipairs(all) do
        local counts = tell(c, 1)
        if c.enforced and not (c.waived and reply[1] > 0) and exceeded(c, counts) then
            reply[3] = 1
        end
    end
    if reply[3] == 0 then
        for _, c in ipairs(all) do
            make(c).wait(c, now)
        end
    end
    return reply
end

-- A settlement: home, and for each charge that is kept, added or asked for: pending, counts
local at = number()
local kept, refunded = charges(), charges()
for _, c in ipairs(kept) do
    make(c).keep(c, at)
end
for _, c in ipairs(refunded) do
    make(c).refund(c, at)
end
for i = 1, number() do
    redis.call('DEL', key(), key())
end
local added = charges()
for _, c in ipairs(added) do
    make(c).add(c, now)
end
for i = 1, number() do
    mark(key(), number())
end
reply = {0}
if text() == '1' then
    reply[1] = left()
end
for _, c in ipairs(kept) do
    tell(c, 0)
end
for _, c in ipairs(added) do
    tell(c, 0)
end
for _, c in ipairs(charges()) do
    tell(c, 0)
end
return reply
