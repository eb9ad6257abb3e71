-- title: Logins without TLS
-- says: Accounts that log in without TLS, from where and by which mechanisms, so that others could read along.
-- group: encryption
-- chart: bar account logins
SELECT
    account,
    address,
    count(*) FILTER (succeeded) AS logins,
    count(*) FILTER (NOT succeeded) AS failures,
    list_sort(list(DISTINCT mechanism)) AS mechanisms,
    list_sort(list(DISTINCT listener)) AS listeners,
    max(time) AS last
FROM logins
WHERE NOT tls
GROUP BY account, address
ORDER BY logins DESC, failures DESC, account, address
