-- title: Accounts under attack
-- says: Accounts at which strangers guessed, how many they were, and whether one of them got in.
-- group: attacks
-- parameter: guesses = 10: guesses of strangers that a row must have
-- before: 30d
-- chart: bar account guesses
WITH judged AS (
    SELECT *, coalesce(network, address) AS place FROM logins
),
homes AS (
    SELECT account, place, min(ts) AS since FROM judged WHERE succeeded GROUP BY account, place
),
strange AS (
    SELECT judged.*, homes.since AS entered,
        -- One password again and again from one place is one guess, and likely an old device.
        CASE WHEN password_fp IS NULL THEN true
            ELSE row_number() OVER (PARTITION BY account, place, password_fp ORDER BY ts) = 1
        END AS guess
    FROM judged LEFT JOIN homes USING (account, place)
    WHERE NOT succeeded AND reason = 'credentials' AND account <> '' AND judged.ts >= $since
        AND (homes.since IS NULL OR judged.ts < homes.since)
)
SELECT
    account,
    count(*) FILTER (guess) AS guesses,
    count(*) AS failures,
    count(DISTINCT address) AS addresses,
    count(DISTINCT place) AS networks,
    count(entered) > 0 AS got_in,
    min(time) AS first,
    max(time) AS last
FROM strange
GROUP BY account
HAVING count(*) FILTER (guess) >= $guesses
ORDER BY guesses DESC, account
