-- title: Sessions by user
-- says: How many sessions each account had, how many messages it fetched, and how many bytes went each way.
-- group: mail
-- chart: bar account sessions
SELECT
    account,
    count(*) AS sessions,
    count(DISTINCT address) AS addresses,
    sum(retr)::BIGINT AS retrieved,
    sum(resp_octets)::BIGINT AS bytes_received,
    sum(orig_octets)::BIGINT AS bytes_sent,
    round(sum(duration), 1) AS seconds,
    max(time) AS last
FROM sessions
WHERE outcome = 'success'
GROUP BY account
ORDER BY sessions DESC, account
