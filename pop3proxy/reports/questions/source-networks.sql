-- title: Sources of failed logins, by network
-- says: The networks (/24, IPv6 /48) that logins failed from, with their addresses and the accounts they tried.
-- group: attacks
-- chart: bar network failures
SELECT
    coalesce(network, address) AS network,
    count(*) FILTER (NOT succeeded) AS failures,
    count(DISTINCT address) FILTER (NOT succeeded) AS addresses,
    count(DISTINCT account) FILTER (NOT succeeded) AS accounts,
    count(*) FILTER (succeeded) AS successes,
    min(time) AS first,
    max(time) AS last
FROM logins
GROUP BY coalesce(network, address)
HAVING count(*) FILTER (NOT succeeded) > 0
ORDER BY failures DESC, network
