-- title: Anomalies
-- says: What the protocol does not provide for, by kind and side, how often, and one example each.
-- group: proxy
-- events: pop3_unexpected
-- chart: bar anomaly times
SELECT
    msg AS anomaly,
    CASE WHEN is_orig THEN 'client' ELSE 'server' END AS side,
    count(*) AS times,
    count(DISTINCT uid) AS sessions,
    count(DISTINCT source) AS addresses,
    arg_max(source, ts) AS last_address,
    arg_max(detail, ts) AS last_detail,
    max(time) AS last
FROM events
WHERE event = 'pop3_unexpected'
GROUP BY msg, is_orig
ORDER BY times DESC, anomaly, side
