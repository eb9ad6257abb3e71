-- title: Gaps in the record
-- says: Where the record is silent or incomplete: silence, sessions without an end, attempts without an outcome, sessions not inspected, lines that cannot be read.
-- group: proxy
-- parameter: minutes = 60: length of a silence
-- events: pop3_connect pop3_login_attempt pop3_login_success pop3_login_failure pop3_unexpected pop3_session
WITH stretches AS (
    SELECT floor(ts / 60) AS minute, min(ts) AS first, max(ts) AS last FROM events GROUP BY 1
),
neighbours AS (
    SELECT lag(last) OVER (ORDER BY minute) AS since, first AS until FROM stretches
),
whole AS (
    SELECT uid,
        min(ts) AS first,
        max(ts) AS last,
        bool_or(event = 'pop3_connect') AS begun,
        bool_or(event = 'pop3_session') AS ended,
        max(ts - duration) FILTER (event = 'pop3_session') AS beginning
    FROM events GROUP BY uid
),
outcomes AS (
    SELECT uid, attempt,
        bool_or(event = 'pop3_login_attempt') AS made,
        bool_or(event <> 'pop3_login_attempt') AS settled,
        min(ts) AS ts
    FROM events
    WHERE attempt IS NOT NULL
    GROUP BY uid, attempt
),
found AS (
    SELECT 'silence' AS gap, to_timestamp(since) AS since, to_timestamp(until) AS until,
        1 AS times, printf('%.0f minutes', (until - since) / 60) AS example
    FROM neighbours WHERE until - since >= $minutes * 60
    UNION ALL
    SELECT 'session without an end', to_timestamp(min(first)), to_timestamp(max(last)), count(*), min(uid)
    FROM whole WHERE begun AND NOT ended HAVING count(*) > 0
    UNION ALL
    -- What began before the period has its beginning there.
    SELECT 'session without a beginning', to_timestamp(min(first)), to_timestamp(max(last)), count(*), min(uid)
    FROM whole WHERE ended AND NOT begun AND beginning >= $since HAVING count(*) > 0
    UNION ALL
    SELECT 'attempt without an outcome', to_timestamp(min(ts)), to_timestamp(max(ts)), count(*), min(uid)
    FROM outcomes JOIN whole USING (uid) WHERE made AND NOT settled AND ended HAVING count(*) > 0
    UNION ALL
    SELECT 'not inspected: ' || inspected, to_timestamp(min(ts)), to_timestamp(max(ts)), count(*), min(uid)
    FROM events WHERE event = 'pop3_session' AND inspected <> 'whole' GROUP BY inspected
    UNION ALL
    SELECT 'lines that cannot be read', NULL, NULL, lines, file FROM unread_lines
)
SELECT gap, since, until, times, example FROM found ORDER BY gap, since
