-- title: Why logins failed
-- says: The reasons of failed logins with the server's code, how often each occurred, and at how many accounts.
-- group: logins
-- chart: bar reason failures
SELECT
    reason,
    code,
    count(*) AS failures,
    round(100.0 * count(*) / sum(count(*)) OVER (), 1)::DOUBLE AS percent,
    count(DISTINCT account) AS accounts,
    count(DISTINCT address) AS addresses,
    max(time) AS last
FROM logins
WHERE NOT succeeded
GROUP BY reason, code
ORDER BY failures DESC, reason, code
