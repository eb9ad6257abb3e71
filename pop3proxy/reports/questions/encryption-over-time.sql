-- title: Encryption over time
-- says: How many logins came in each version of TLS, or without it, by mechanism and day.
-- group: encryption
-- chart: line day logins by encryption
SELECT
    time::DATE AS day,
    coalesce(tls_version, 'none') AS encryption,
    mechanism,
    count(*) AS logins,
    count(*) FILTER (succeeded) AS succeeded
FROM logins
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
