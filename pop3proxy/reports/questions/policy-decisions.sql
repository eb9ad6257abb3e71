-- title: What the policy did
-- says: How often each rule for failed logins acted, or would have acted, and about how many.
-- group: proxy
-- events: pop3_policy
-- chart: bar rule times
SELECT
    rule,
    action,
    CASE WHEN dry_run THEN 'would have' ELSE 'did' END AS effect,
    count(*) AS times,
    count(DISTINCT key) AS keys,
    mode(key) AS most_often,
    count(DISTINCT uid) AS sessions,
    min(time) AS first,
    max(time) AS last
FROM events
WHERE event = 'pop3_policy'
GROUP BY rule, action, dry_run
ORDER BY times DESC, rule, action, effect
