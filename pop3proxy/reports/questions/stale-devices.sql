-- title: Devices with an outdated password
-- says: The same failed login again and again: one account, one address, one password or a steady rhythm.
-- group: attacks
-- parameter: failures = 10: failures that a row must have
-- parameter: hours = 1: how long they must have gone on
-- chart: bar account failures
WITH failed AS (
    SELECT account, address, ts, time, password_fp,
        ts - lag(ts) OVER (PARTITION BY account, address ORDER BY ts) AS pause
    FROM logins
    WHERE NOT succeeded AND reason = 'credentials' AND account <> ''
),
devices AS (
    SELECT account, address,
        count(*) AS failures,
        count(DISTINCT password_fp) = 1 AND count(password_fp) = count(*) AS one_password,
        count(password_fp) > 0 AS passwords_known,
        median(pause) AS pause,
        quantile_cont(pause, 0.9) AS long_pause,
        min(time) AS first,
        max(time) AS last
    FROM failed
    GROUP BY account, address
)
SELECT
    account,
    address,
    failures,
    round(pause / 60, 1) AS every_minutes,
    CASE WHEN one_password THEN 'one password' ELSE 'steady rhythm' END AS sign,
    first,
    last
FROM devices
WHERE failures >= $failures
    AND epoch(last) - epoch(first) >= $hours * 3600
    AND (one_password OR (NOT passwords_known AND pause >= 60 AND long_pause <= 2 * pause))
ORDER BY failures DESC, account, address
