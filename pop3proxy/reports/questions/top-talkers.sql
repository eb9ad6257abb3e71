-- title: Top talkers
-- says: The addresses and accounts that move the most bytes, whether or not a login succeeded.
-- group: mail
-- chart: bar address bytes
SELECT
    address,
    CASE WHEN outcome = 'success' THEN account ELSE '' END AS account,
    sum(resp_octets + orig_octets)::BIGINT AS bytes,
    sum(resp_octets)::BIGINT AS bytes_received,
    sum(orig_octets)::BIGINT AS bytes_sent,
    count(*) AS sessions,
    sum(commands)::BIGINT AS commands,
    round(sum(duration), 1) AS seconds
FROM sessions
GROUP BY 1, 2
ORDER BY bytes DESC, address, account
