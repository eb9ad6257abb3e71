-- title: Accounts without a login for long
-- says: Accounts that logged in once and have not done so for 90 days, with the last login.
-- group: accounts
-- parameter: days = 90: days without a login
-- before: all
SELECT
    account,
    max(time) AS last_login,
    floor(($until - max(ts)) / 86400)::BIGINT AS days,
    arg_max(address, ts) AS last_address,
    count(*) AS logins
FROM logins
WHERE succeeded AND account <> ''
GROUP BY account
HAVING max(ts) < $until - $days * 86400
ORDER BY last_login, account
