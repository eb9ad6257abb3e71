-- Lets one login fly, holds or refuses it, or settles it: all that one decision reads and writes, in one call.
--
-- A count is of what has failed: a hash of buckets, or, of different members, a sorted set of them by the time they
-- were last seen. What is in flight at a place is a sorted set of flights by the time they took off; that ends by
-- itself, since a proxy that was killed will not settle them. Beside it may stand a mark that a login is held there,
-- and is to be told when a flight ends.
--
-- ARGV[1] is one string of words, which is cheaper than many: operation, now, seconds that an answer may take, parts
-- of a window, then what the operation takes. The member of a plain count is "-". A flight is its id and its
-- members, between colons; an empty member is "-". ARGV[2] is the channel of what is settled.
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
    redis.call('PEXPIRE', name, math.ceil(seconds * 1000) + 1000)
end

local function expire_count(name, seconds)
    expire(name, seconds * (parts + 1) / parts)
end

local function charge()
    local c = {kept = key(), member = text(), enforced = text() == '1', waived = text() == '1'}
    c.place, c.kind, c.trickle, c.timed = number(), number(), number(), text() == '1'
    if c.trickle > 0 then
        c.paced = key()
    end
    c.windows, c.longest, c.bound, c.least = {}, 0, 0, math.huge
    for i = 1, number() do
        local window = {seconds = number(), limit = number()}
        c.windows[i] = window
        c.longest = math.max(c.longest, window.seconds)
        c.bound = math.max(c.bound, window.limit)
        c.least = math.min(c.least, window.limit)
    end
    -- One more, so that a limit is seen to be exceeded.
    c.bound = c.bound + 1
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

-- Adds up the buckets of each window, and forgets those that are older.
function plain.counts(c)
    local counts = {}
    for i in ipairs(c.windows) do
        counts[i] = 0
    end
    local found = redis.call('HGETALL', c.kept)
    for i = 1, #found, 2 do
        local index, which = string.match(found[i], '^(%d+):(.+)$')
        local window = c.windows[tonumber(index)]
        if not window or tonumber(which) < bucket(window.seconds, now) - parts then
            redis.call('HDEL', c.kept, found[i])
        else
            counts[tonumber(index)] = counts[tonumber(index)] + tonumber(found[i + 1])
        end
    end
    return counts
end

-- Counts what there would be with this charge, with failures, and with all that is in flight, too.
function plain.with(c, overdue, waiting)
    local settled, possible = plain.counts(c), {}
    for i, count in ipairs(settled) do
        settled[i] = count + 1 + #overdue
        possible[i] = settled[i] + #waiting
    end
    return settled, possible
end

function plain.add(c)
    for i, window in ipairs(c.windows) do
        local field = i .. ':' .. string.format('%.0f', bucket(window.seconds, now))
        redis.call('HINCRBY', c.kept, field, 1)
    end
    expire_count(c.kept, c.longest)
end

function plain.undo(c, at)
    for i, window in ipairs(c.windows) do
        local field = i .. ':' .. string.format('%.0f', bucket(window.seconds, at))
        if redis.call('HINCRBY', c.kept, field, -1) <= 0 then
            redis.call('HDEL', c.kept, field)
        end
    end
end

-- Counts of different members ----------------------------------------------------------------------------

local distinct = {}

function distinct.counts(c)
    redis.call('ZREMRANGEBYSCORE', c.kept, '-inf', exactly(now - c.longest))
    local counts = {}
    for i, window in ipairs(c.windows) do
        counts[i] = redis.call('ZCOUNT', c.kept, '(' .. exactly(now - window.seconds), '+inf')
    end
    return counts
end

function distinct.with(c, overdue, waiting)
    local counts, known = distinct.counts(c), {['-'] = true}
    local function see(member)
        if known[member] then
            return
        end
        known[member] = true
        local seen = tonumber(redis.call('ZSCORE', c.kept, member) or '-inf')
        for i, window in ipairs(c.windows) do
            if seen <= now - window.seconds then
                counts[i] = counts[i] + 1
            end
        end
    end
    see(c.member)
    for _, flight in ipairs(overdue) do
        see(flight[c.kind + 1])
    end
    local settled = {unpack(counts)}
    for _, flight in ipairs(waiting) do
        see(flight[c.kind + 1])
    end
    return settled, counts
end

-- Milliseconds since each member was last seen.
function distinct.ages(c)
    local ages = {}
    local found = redis.call('ZRANGE', c.kept, 0, -1, 'WITHSCORES')
    for i = 2, #found, 2 do
        ages[#ages + 1] = math.floor((now - tonumber(found[i])) * 1000)
    end
    return ages
end

-- Of more members than any limit asks for, those not seen for longest go.
function distinct.add(c)
    if not redis.call('ZSCORE', c.kept, c.member) then
        while redis.call('ZCARD', c.kept) >= c.bound do
            redis.call('ZPOPMIN', c.kept)
        end
    end
    redis.call('ZADD', c.kept, 'GT', exactly(now), c.member)
    expire_count(c.kept, c.longest)
end

-- Both ---------------------------------------------------------------------------------------------------

local function make(c)
    return c.member == '-' and plain or distinct
end

local function exceeded(c, counts)
    for i, window in ipairs(c.windows) do
        if counts[i] > window.limit then
            return true
        end
    end
    return false
end

local function mark(name, seconds)
    redis.call('SET', name, exactly(now + seconds), 'PX', math.ceil(seconds * 1000) + 1000)
end

-- Whether one beyond the limit was let through a short time ago. What is further ahead was let through before the
-- clock was set back.
local function paced(c)
    local seconds = tonumber(redis.call('GET', c.paced) or '0') - now
    return seconds > 0 and seconds <= c.trickle + 1
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

-- Flights ------------------------------------------------------------------------------------------------

local function places()
    local all = {}
    for i = 1, number() do
        all[i] = key()
    end
    return all
end

-- What is in flight at a place: the members of each, those that are overdue apart, and when the next will be.
local function in_flight(name, wait)
    redis.call('ZREMRANGEBYSCORE', name, '-inf', exactly(now - patience))
    local overdue, waiting, again = {}, {}, math.huge
    local found = redis.call('ZRANGE', name, 0, -1, 'WITHSCORES')
    for i = 1, #found, 2 do
        local members, since = {}, tonumber(found[i + 1])
        for member in string.gmatch(string.match(found[i], ':(.*)$'), '[^:]+') do
            members[#members + 1] = member
        end
        if now - since < wait then
            waiting[#waiting + 1] = members
            again = math.min(again, since + wait)
        else
            overdue[#overdue + 1] = members
        end
    end
    return overdue, waiting, again
end

local function take_off(flight, all)
    for _, name in ipairs(all) do
        redis.call('ZADD', name, exactly(now), flight)
        expire(name, patience)
    end
end

-- Tells the proxies that wait for something to settle at a place.
local function tell(name)
    if redis.call('DEL', name .. ':w') > 0 then
        redis.call('PUBLISH', ARGV[2], name)
    end
end

local FLIES, REFUSED, HELD = 0, 1, 2

-- Returns: fate, welcome, repeats, number of the charge that holds (-1: the same password before), number of the
-- place (0 if none, below 0 that of a budget), milliseconds until to ask again; the number of the budget that counts
-- (-1: none); how many charges let it through beyond their limit; how many are over; the numbers of the first, and
-- the numbers and counts of the second; and the counts of the charge that holds, or of
-- the budget that holds or refuses, if all that is in flight failed.
local function attempt()
    local wait, overdue_fail, flight = number(), text() == '1', text()
    local all, tries = places(), number()
    local welcome, budget, budgets = text() == '1' and left() or 0, -1, {}
    for i = 1, number() do
        local one = {welcome = left() > 0, place = key(), level = key()}
        one.size, one.seconds = number(), number()
        budgets[i] = one
        if one.welcome and budget < 0 then
            budget = i - 1
        end
    end

    local function answer(fate, repeats, by, place, again, over, counts, trickled)
        trickled = trickled or {}
        local milliseconds = again == math.huge and 0 or math.max(0, math.ceil((again - now) * 1000))
        local reply = {fate, welcome, repeats, by, place, milliseconds, budget, #trickled, #over}
        for _, c in ipairs(trickled) do
            reply[#reply + 1] = c.number
        end
        for _, one in ipairs(over) do
            reply[#reply + 1] = one.number
            for _, count in ipairs(one.counts) do
                reply[#reply + 1] = count
            end
        end
        for _, count in ipairs(counts or {}) do
            reply[#reply + 1] = count
        end
        if fate == HELD then
            local name = place > 0 and all[place] or budgets[-place].place
            redis.call('SET', name .. ':w', '1', 'PX', math.ceil(wait * 1000) + 1000)
        end
        return reply
    end

    if text() == '1' then
        local repeated = charge()
        local repeats = make(repeated).counts(repeated)[1]
        local pace = tries > 0 and key()
        if pace then
            local _, waiting, again = in_flight(all[tries], wait)
            if #waiting == 0 then
                again = repeats > 0 and tonumber(redis.call('GET', pace) or '0') or 0
            end
            if again > now then
                return answer(HELD, repeats, -1, tries, again, {})
            end
        end
        if repeats > 0 then
            take_off(flight, pace and {all[tries]} or {})
            return answer(FLIES, repeats, -1, 0, math.huge, {})
        end
    end

    if budget >= 0 then
        local one = budgets[budget + 1]
        local overdue, waiting, again = in_flight(one.place, wait)
        local spent = math.max(0, tonumber(redis.call('GET', one.level) or '0') - now) / one.seconds
        local failed = math.ceil(spent - 1e-6) + (overdue_fail and #overdue or 0) + 1
        if failed > one.size then
            return answer(REFUSED, 0, -1, 0, math.huge, {}, {failed})
        end
        if failed + #waiting > one.size then
            return answer(HELD, 0, -1, -budget - 1, again, {}, {failed + #waiting})
        end
        take_off(flight, {one.place, tries > 0 and all[tries] or nil})
        return answer(FLIES, 0, -1, 0, math.huge, {})
    end

    local cards, over, trickled, holds, refused = {}, {}, {}, nil, false
    for i, c in ipairs(charges()) do
        c.number = i - 1
        local name = all[c.place]
        cards[name] = cards[name] or redis.call('ZCARD', name)
        if cards[name] >= c.least or redis.call('EXISTS', c.kept) > 0 then
            local overdue, waiting, again = in_flight(name, wait)
            local settled, possible = make(c).with(c, overdue_fail and overdue or {}, waiting)
            local spared = c.waived and welcome > 0
            local counts = c.enforced and not spared
            if not exceeded(c, settled) then
                if counts and not holds and exceeded(c, possible) then
                    holds = {number = i - 1, place = c.place, counts = possible, again = again}
                end
            elseif c.paced and not spared and not paced(c) then
                trickled[#trickled + 1] = c
            else
                over[#over + 1] = {number = i - 1, counts = settled}
                refused = refused or counts
            end
        end
    end
    if refused then
        return answer(REFUSED, 0, -1, 0, math.huge, over)
    end
    if holds then
        return answer(HELD, 0, holds.number, holds.place, holds.again, over, holds.counts)
    end
    take_off(flight, all)
    for _, c in ipairs(trickled) do
        mark(c.paced, c.trickle)
    end
    return answer(FLIES, 0, -1, 0, math.huge, over, nil, trickled)
end

-- Returns: home, and for each charge, and each that is only asked for, its counts; and, of a timed one, how many
-- members it has, and their ages.
local function settle()
    local flight = text()
    for _, name in ipairs(places()) do
        redis.call('ZREM', name, flight)
        tell(name)
    end
    for i = 1, number() do
        local at = number()
        plain.undo(charge(), at)
    end
    for i = 1, number() do
        redis.call('DEL', key())
    end
    local added = charges()
    for _, c in ipairs(added) do
        make(c).add(c)
    end
    for i = 1, number() do
        mark(key(), number())
    end
    if text() == '1' then
        local name, seconds = key(), number()
        local ends = math.max(now, tonumber(redis.call('GET', name) or '0')) + seconds
        redis.call('SET', name, exactly(ends), 'PX', math.ceil((ends - now) * 1000) + 1000)
    end
    local reply = {text() == '1' and left() or 0}
    for _, some in ipairs({added, charges()}) do
        for _, c in ipairs(some) do
            for _, count in ipairs(make(c).counts(c)) do
                reply[#reply + 1] = count
            end
            if c.timed then
                local ages = distinct.ages(c)
                reply[#reply + 1] = #ages
                for _, age in ipairs(ages) do
                    reply[#reply + 1] = age
                end
            end
        end
    end
    return reply
end

-- Takes a flight for overdue.
local function announce()
    local since, flight = number(), text()
    for _, name in ipairs(places()) do
        redis.call('ZADD', name, 'XX', exactly(since), flight)
        tell(name)
    end
    return {}
end

return ({attempt = attempt, settle = settle, announce = announce})[operation]()
