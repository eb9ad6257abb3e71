-- title: Password spraying
-- says: Addresses that tried few passwords at many accounts, and how many accounts they got into.
-- group: attacks
-- parameter: accounts = 10: accounts at which an address must have failed
-- parameter: per_account = 5: failures an account that are still few
-- chart: bar address accounts
SELECT
    address,
    count(DISTINCT account) FILTER (NOT succeeded) AS accounts,
    count(*) FILTER (NOT succeeded) AS failures,
    nullif(count(DISTINCT password_fp) FILTER (NOT succeeded), 0) AS passwords,
    count(DISTINCT account) FILTER (succeeded) AS accounts_entered,
    min(time) FILTER (NOT succeeded) AS first,
    max(time) FILTER (NOT succeeded) AS last
FROM logins
WHERE account <> '' AND (succeeded OR reason = 'credentials')
GROUP BY address
HAVING count(DISTINCT account) FILTER (NOT succeeded) >= $accounts
    AND count(*) FILTER (NOT succeeded)
        <= $per_account * count(DISTINCT account) FILTER (NOT succeeded)
ORDER BY accounts DESC, address
