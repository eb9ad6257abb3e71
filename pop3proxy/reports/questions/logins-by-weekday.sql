-- title: Logins by weekday and hour
-- says: How many logins succeeded and failed in each hour of the week, Monday being 1.
-- group: logins
-- chart: heat hour weekday logins
SELECT
    isodow(time) AS weekday,
    hour(time) AS hour,
    count(*) AS logins,
    count(*) FILTER (succeeded) AS succeeded,
    count(*) FILTER (NOT succeeded) AS failed
FROM logins
GROUP BY 1, 2
ORDER BY 1, 2
