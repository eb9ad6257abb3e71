-- title: Logins by provider
-- says: The providers (autonomous systems) that logins came from, by a local file that knows them.
-- group: attacks
-- needs: geo
-- chart: bar provider failures
SELECT
    asn,
    coalesce(as_name, 'unknown') AS provider,
    count(*) FILTER (NOT succeeded) AS failures,
    count(*) FILTER (succeeded) AS successes,
    count(DISTINCT address) AS addresses,
    count(DISTINCT account) FILTER (NOT succeeded) AS accounts_tried,
    count(DISTINCT account) FILTER (succeeded) AS accounts_entered
FROM logins
GROUP BY asn, as_name
ORDER BY failures DESC, asn
