-- title: Sources of failed logins, by address
-- says: The addresses that logins failed from, how many accounts they tried, and how many they got into.
-- group: attacks
-- chart: bar address failures
SELECT
    address,
    count(*) FILTER (NOT succeeded) AS failures,
    count(DISTINCT account) FILTER (NOT succeeded) AS accounts,
    count(*) FILTER (succeeded) AS successes,
    count(DISTINCT account) FILTER (succeeded) AS accounts_entered,
    min(time) AS first,
    max(time) AS last
FROM logins
GROUP BY address
HAVING count(*) FILTER (NOT succeeded) > 0
ORDER BY failures DESC, address
