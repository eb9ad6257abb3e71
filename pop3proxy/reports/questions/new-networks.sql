-- title: First login from a new network
-- says: Accounts that were logged in to from a network (/24, IPv6 /48) for the first time, having had others before.
-- group: accounts
-- before: 90d
WITH judged AS (
    SELECT *, coalesce(network, address) AS place FROM logins WHERE succeeded AND account <> ''
),
firsts AS (
    SELECT account, place AS network, min(ts) AS ts, min(time) AS time,
        arg_min(address, ts) AS address, arg_min(mechanism, ts) AS mechanism, count(*) AS logins,
        arg_min(country, ts) AS country, arg_min(uid, ts) AS uid
    FROM judged
    GROUP BY account, place
),
numbered AS (
    SELECT *, min(ts) OVER (PARTITION BY account) AS known_since,
        row_number() OVER (PARTITION BY account ORDER BY ts) - 1 AS networks_before
    FROM firsts
)
SELECT account, network, address, country, time, mechanism, networks_before, logins, uid
FROM numbered
WHERE ts > known_since AND ts >= $since
ORDER BY time, account
