-- title: Logins over time
-- says: How many logins succeeded, failed, were cancelled or got no answer in each stretch of time.
-- group: logins
-- parameter: minutes = 60: length of a stretch
-- chart: line time logins by outcome
-- events: pop3_login_success pop3_login_failure pop3_unexpected
SELECT
    time_bucket(to_minutes($minutes::BIGINT), time, current_setting('TimeZone')) AS time,
    CASE
        WHEN event = 'pop3_login_success' THEN 'success'
        WHEN event = 'pop3_login_failure' THEN 'failure'
        WHEN msg = 'login_cancelled' THEN 'cancelled'
        ELSE 'unanswered'
    END AS outcome,
    count(*) AS logins
FROM events
WHERE event IN ('pop3_login_success', 'pop3_login_failure')
    OR (event = 'pop3_unexpected' AND attempt IS NOT NULL)
GROUP BY 1, 2
ORDER BY 1, 2
