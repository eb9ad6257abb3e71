-- title: Passwords that were likely guessed
-- says: Logins from a network that had never logged in to the account, behind failures of strangers there.
-- group: attacks
-- parameter: failures = 5: failures that make a login suspicious
-- parameter: hours = 24: how long before the login they may lie
-- before: 30d
WITH judged AS (
    SELECT *, coalesce(network, address) AS place FROM logins
),
-- From when on a network is at home at an account.
homes AS (
    SELECT account, place, min(ts) AS since FROM judged WHERE succeeded GROUP BY account, place
),
strange AS (
    SELECT judged.account, judged.place, judged.address, judged.ts, judged.password_fp
    FROM judged LEFT JOIN homes USING (account, place)
    WHERE NOT judged.succeeded AND judged.reason = 'credentials'
        AND (homes.since IS NULL OR judged.ts < homes.since)
),
entries AS (
    SELECT judged.account, judged.place, judged.address, judged.ts, judged.time, judged.mechanism,
        judged.uid,
        judged.ts > min(homes.since) OVER (PARTITION BY judged.account) AS has_other_home
    FROM judged JOIN homes USING (account, place)
    WHERE judged.succeeded AND judged.ts = homes.since
),
recent AS (
    SELECT * FROM entries WHERE ts >= $since
),
at_account AS (
    SELECT recent.uid, recent.account,
        count(*) AS failures,
        count(DISTINCT strange.address) AS strangers,
        -- One password again and again is an old device that was set right at last.
        count(*) FILTER (strange.place = recent.place) AS own,
        count(DISTINCT strange.password_fp) FILTER (strange.place = recent.place) AS own_passwords
    FROM recent JOIN strange ON strange.account = recent.account
        AND strange.ts < recent.ts AND strange.ts >= recent.ts - $hours * 3600
    GROUP BY recent.uid, recent.account
),
elsewhere AS (
    SELECT recent.uid, recent.account, count(DISTINCT strange.account) AS accounts
    FROM recent JOIN strange ON strange.address = recent.address AND strange.account <> recent.account
        AND strange.ts < recent.ts AND strange.ts >= recent.ts - $hours * 3600
    GROUP BY recent.uid, recent.account
),
weighed AS (
    SELECT recent.*,
        coalesce(failures, 0) AS failures,
        coalesce(strangers, 0) AS strangers,
        CASE WHEN own_passwords = 1 THEN 0 ELSE coalesce(own, 0) END AS own,
        coalesce(accounts, 0) AS other_accounts
    FROM recent
    LEFT JOIN at_account USING (uid, account)
    LEFT JOIN elsewhere USING (uid, account)
)
SELECT
    account,
    address,
    time,
    mechanism,
    failures AS failures_before,
    strangers,
    other_accounts AS other_accounts_tried,
    CASE
        WHEN own >= $failures THEN 'it had failed at this account'
        WHEN other_accounts >= $failures THEN 'it had failed at other accounts'
        ELSE 'other strangers had failed at this account'
    END AS why,
    uid
FROM weighed
WHERE own >= $failures
    OR other_accounts >= $failures
    OR (has_other_home AND failures - own >= $failures)
ORDER BY time, account
