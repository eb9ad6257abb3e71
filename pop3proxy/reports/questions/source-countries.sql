-- title: Logins by country
-- says: The countries that logins came from, by a local file that knows them, with failures and successes.
-- group: attacks
-- needs: geo
-- chart: bar country failures
SELECT
    coalesce(country, 'unknown') AS country,
    count(*) FILTER (NOT succeeded) AS failures,
    count(*) FILTER (succeeded) AS successes,
    count(DISTINCT address) AS addresses,
    count(DISTINCT account) FILTER (NOT succeeded) AS accounts_tried,
    count(DISTINCT account) FILTER (succeeded) AS accounts_entered
FROM logins
GROUP BY 1
ORDER BY failures DESC, country
