-- title: Logins by old TLS
-- says: Accounts that log in by a version of TLS older than 1.2 (RFC 8996), with their addresses and ciphers.
-- group: encryption
-- chart: bar account logins
SELECT
    account,
    address,
    tls_version AS version,
    list_sort(list(DISTINCT tls_cipher)) AS ciphers,
    count(*) FILTER (succeeded) AS logins,
    count(*) FILTER (NOT succeeded) AS failures,
    max(time) AS last
FROM logins
WHERE tls_version NOT IN ('TLSv1.2', 'TLSv1.3')
GROUP BY account, address, tls_version
ORDER BY logins DESC, failures DESC, account, address, version
