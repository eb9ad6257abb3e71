-- Copies keys of former versions, with the times at which they end, to the names of this one.
--
-- KEYS: pairs of a former name and a name. Returns how many were copied: none over a key that is there.

local copied = 0
for i = 1, #KEYS, 2 do
    copied = copied + redis.call('COPY', KEYS[i], KEYS[i + 1])
end
return copied
