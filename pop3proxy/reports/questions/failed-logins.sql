-- title: Failed logins
-- says: Which accounts logins failed for, from where, how often, by which mechanisms, and how often without TLS.
-- group: logins
-- parameter: at_least = 1: failures that a row must have
-- chart: bar account failures
SELECT
    account,
    address,
    count(*) AS failures,
    count(*) FILTER (NOT tls) AS without_tls,
    list_sort(list(DISTINCT mechanism)) AS mechanisms,
    list_sort(list(DISTINCT reason)) AS reasons,
    min(time) AS first,
    max(time) AS last
FROM logins
WHERE NOT succeeded
GROUP BY account, address
HAVING count(*) >= $at_least
ORDER BY failures DESC, account, address
