-- title: Deleted messages
-- says: Which accounts had messages deleted, from where, and how many more than were fetched.
-- group: mail
-- parameter: at_least = 1: messages that a row must have
-- chart: bar account deleted
SELECT
    account,
    address,
    count(*) AS sessions,
    sum(retr)::BIGINT AS retrieved,
    sum(dele)::BIGINT AS asked_for,
    sum(deleted)::BIGINT AS deleted,
    sum(greatest(coalesce(deleted, dele) - retr, 0))::BIGINT AS not_fetched,
    min(time) AS first,
    max(time) AS last
FROM sessions
-- Old records lack what was deleted, and have what was asked for.
WHERE outcome = 'success' AND coalesce(deleted, dele) > 0
GROUP BY account, address
HAVING sum(coalesce(deleted, dele)) >= $at_least
ORDER BY deleted DESC NULLS LAST, asked_for DESC, account, address
