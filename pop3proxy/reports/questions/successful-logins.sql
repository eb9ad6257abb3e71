-- title: Successful logins
-- says: Which accounts logged in, from where, how often, by which mechanisms, and how often without TLS.
-- group: logins
-- chart: bar account logins
SELECT
    account,
    address,
    count(*) AS logins,
    count(*) FILTER (NOT tls) AS without_tls,
    list_sort(list(DISTINCT mechanism)) AS mechanisms,
    min(time) AS first,
    max(time) AS last
FROM logins
WHERE succeeded
GROUP BY account, address
ORDER BY logins DESC, account, address
