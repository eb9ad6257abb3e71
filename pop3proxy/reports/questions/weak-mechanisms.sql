-- title: Weak mechanisms
-- says: Mechanisms that show the password to the network or rest on broken hashes, and how many accounts use them.
-- group: encryption
-- chart: bar mechanism logins
WITH weak AS (
    SELECT * FROM (VALUES
        ('APOP', 'MD5; the server must keep the password in clear'),
        ('CRAM-MD5', 'MD5; the server must keep the password in clear'),
        ('DIGEST-MD5', 'MD5; declared historic by RFC 6331'),
        ('NTLM', 'MD4; can be relayed to other servers'),
        ('RPOP', 'no password: the client''s address and port are believed'),
        ('ANONYMOUS', 'no password')
    ) AS said (mechanism, why)
),
used AS (
    SELECT logins.*,
        CASE WHEN weak.why IS NOT NULL THEN weak.why
            WHEN NOT tls AND mechanism IN ('USER/PASS', 'PLAIN', 'LOGIN', 'XOAUTH2', 'OAUTHBEARER')
                THEN 'the password or token in clear, without TLS'
        END AS why
    FROM logins LEFT JOIN weak USING (mechanism)
    WHERE succeeded
)
SELECT
    mechanism,
    tls,
    count(*) AS logins,
    count(DISTINCT account) AS accounts,
    count(DISTINCT address) AS addresses,
    why,
    max(time) AS last
FROM used
WHERE why IS NOT NULL
GROUP BY mechanism, tls, why
ORDER BY logins DESC, mechanism, tls
