-- title: Logins at unusual hours
-- says: Logins at an hour, give or take one, at which the account logged in on no other day of the last 30.
-- group: accounts
-- parameter: days = 5: other days on which an account must have logged in
-- before: 30d
WITH days AS (
    SELECT DISTINCT account, time::DATE AS day, hour(time) AS hour
    FROM logins WHERE succeeded AND account <> ''
),
active AS (
    SELECT account, count(DISTINCT day) AS days FROM days GROUP BY account
),
odd AS (
    SELECT days.account, days.day, days.hour, active.days - 1 AS other_days
    FROM days JOIN active USING (account)
    WHERE active.days - 1 >= $days
        AND NOT EXISTS (
            SELECT 1 FROM days AS others
            WHERE others.account = days.account AND others.day <> days.day
                AND least(abs(others.hour - days.hour), 24 - abs(others.hour - days.hour)) <= 1
        )
)
SELECT
    odd.account,
    odd.day,
    odd.hour,
    count(*) AS logins,
    list_sort(list(DISTINCT logins.address)) AS addresses,
    odd.other_days,
    min(logins.time) AS first
FROM odd JOIN logins ON logins.account = odd.account AND logins.time::DATE = odd.day
    AND hour(logins.time) = odd.hour
WHERE logins.succeeded AND logins.ts >= $since
GROUP BY odd.account, odd.day, odd.hour, odd.other_days
ORDER BY first, odd.account
