"""What real servers say when they refuse a login, and what they mean by it: the built-in rows; no code.

Each row has its source: a server and the file that has the text (version or date of what was read), or the
page that quotes it. The order matters: the first row that is found gives the reason. What says that the
password is wrong comes first, since some servers list all that may be wrong in one text.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from .events import Reason
from .refusalrow import Refusal

_COURIER = "Courier 1.0.16 and courier-libs 2026-06"
_CYRUS = "Cyrus 3.6.1 and imap/pop3d.c 2026-08"
_DBMAIL = "DBMail, src/pop3.c 2026-08"
_DAVMAIL = "DavMail, PopConnection.java 2026-08"
_DOVECOT = "Dovecot 2.3.19"
_GROMOX = "Gromox, mra/pop3/resource.cpp 2026-08"
_GREENMAIL = "GreenMail, pop3/commands 2026-08"
_HMAILSERVER = "hMailServer, POP3Connection.cpp 2025-04"
_MAILUTILS = "GNU Mailutils 3.15, pop3d"
_NETEASE = "163.com and 126.com (Coremail)"
_PMAILD = "pmaild 2.0 (pinetd)"
_QMAIL = "notqmail, qmail-popup.c and qmail-pop3d.c 2024-12"
_QQ = "QQ Mail"
_SASL = "Cyrus SASL 2.1, libsasl2"
_SOLID = "solid-pop3d 0.15"
_TWISTED = "Twisted 24.10, mail/pop3.py"
_UW = "UW-IMAP, ipop3d.c (panda-imap 2013-06)"
_WILDDUCK = "WildDuck, lib/pop3/connection.js 2026-08"
_ZIMBRA = "Zimbra, Pop3Handler.java 2024-10"


def _rows(reason: Reason, charset: str, texts: Iterable[tuple[str, str]]) -> Iterator[Refusal]:
    for text, source in texts:
        yield Refusal(text, reason, source, charset)


BUILT_IN: Final = (
    *_rows(
        Reason.CREDENTIALS,
        "utf-8",
        (
            # "Account is abnormal, service is not open, password is incorrect, … or system is busy."
            ("password is incorrect", f"{_QQ}: github.com/chengazhen/cursor-auto-free/issues/294"),
            # "Invalid user name or password. Too many invalid logon attempts."
            ("invalid user name or password", _HMAILSERVER),
            (
                "unknown user name or bad password",
                "Exchange: github.com/ditesh/node-poplib/issues/34",
            ),
            ("wrong password", "GoDaddy: github.com/jstedfast/MailKit/issues/29"),
            ("invalid password", "RFC 1939 section 7"),
            # "Wrong username or password, or administratively blocked"
            ("wrong username or password", _GROMOX),
            ("password incorrect", _DBMAIL),
            # "login failure or POP3 disabled, try later."
            ("login failure or pop3 disabled", "Yandex: transcripts of pop.yandex.ru since 2012"),
        ),
    ),
    *_rows(
        Reason.IN_USE,
        "utf-8",
        (
            ("lock busy", "Qpopper: misty.ne.jp/support/faq/mailerror.html"),
            ("is another session active", "Qpopper: support.znet.com/faqs/poplock.shtml"),
            ("mailbox locked", "VPOP3: helpdesk.pscs.co.uk/612651"),
            ("mailbox is locked", f"{_DOVECOT}; directnic.com/help/faq/?question_id=630"),
            ("mailbox is already locked", _HMAILSERVER),
            ("maildrop already locked", "RFC 1939 section 7"),
            ("unable to lock maildrop", f"RFC 1939 section 7; {_CYRUS}"),
            ("unable to lock mailbox", "lifewire.com/understanding-pop-errors-with-email-1171123"),
            ("mailbox in use", f"{_MAILUTILS}; {_UW}"),
            ("can't get lock", _UW),
            ("can't lock mailbox", _SOLID),
            ("can't set lock on mailbox", _SOLID),
        ),
    ),
    *_rows(
        Reason.LOGIN_DELAY,
        "utf-8",
        (
            ("login allowed only every", "Hotmail: JavaMail, com/sun/mail/pop3/Protocol.java"),
            ("exceeded the login limit", "Hotmail: github.com/frappe/frappe/issues/242"),
            ("logins must be at least", _CYRUS),
            ("minimum login delay", _MAILUTILS),
        ),
    ),
    # "Login too frequent! Please check your Outlook, Foxmail or …"
    *_rows(
        Reason.LOGIN_DELAY,
        "gbk",
        (("登录太频繁", f"{_NETEASE}: github.com/zhangyunhao116/zmail/issues/30"),),
    ),
    *_rows(
        Reason.TLS_REQUIRED,
        "utf-8",
        (
            (
                "plaintext authentication disallowed",
                f"{_DOVECOT}; Kopano, gateway/POP3.cpp 2021-11",
            ),
            ("plaintext authentication disabled", _DOVECOT),
            ("cleartext authentication disallowed", "Dovecot 2.4, login-common.h"),
            ("only available under a layer", _CYRUS),
            ("encryption needed to use mechanism", _SASL),
            ("tls required", _COURIER),
            ("via insecure connection", _COURIER),
            ("stls is required", _HMAILSERVER),
            ("ssl/tls-connection is required", _HMAILSERVER),
            ("only valid after entering tls", _ZIMBRA),
            ("cannot authenticate over plain-text", "Stalwart, crates/pop3 2026-08"),
            ("try stls", _DBMAIL),
            ("must issue a stls command", _GROMOX),
            ("need ssl before logging in", _PMAILD),
            ("secure connection is requiered", f"{_QQ} (sic): tutorials of poplib, since 2018"),
        ),
    ),
    *_rows(
        Reason.ACCOUNT,
        "utf-8",
        (
            ("not enabled for pop access", "Gmail: pastebin.com/7Zsg6zfa"),
            ("pop access not enabled", _ZIMBRA),
            ("pop3 access disabled", _COURIER),
            ("login disabled for this user", _DOVECOT),
            ("account disabled", _SASL),
            ("password has expired", _ZIMBRA),
            ("passphrase expired", _SASL),
            ("access denied by user filter", _GROMOX),
            ("access denied by ipaddr filter", _GROMOX),
        ),
    ),
    # "You have no permission to use POP3."
    *_rows(
        Reason.ACCOUNT,
        "gbk",
        (("没有权限使用pop3", f"{_NETEASE}: questions about poplib.error_proto"),),
    ),
    *_rows(
        Reason.TEMPORARY,
        "utf-8",
        (
            ("server unavailable", "Exchange 2010: jaapwesselius.com/2012/03"),
            ("service*unavailable", "InterMail: fetchmail 6.3, pop3.c"),
            ("service busy", "Zimbra, Pop3Config.java 2024-10"),
            ("temporary problem", _COURIER),
            ("temporarily unavailable", f"{_DOVECOT}; {_COURIER}; {_ZIMBRA}"),
            ("temporary authentication failure", _DOVECOT),
            ("internal login failure", _DOVECOT),
            ("server error", f"nginx, ngx_mail_pop3_module.c 2026-08; {_DBMAIL}; {_TWISTED}"),
            ("too many open connections", _CYRUS),
            ("maximum number of connections", _DOVECOT),
            ("having maintenance", _ZIMBRA),
            ("unable to access mailbox", _HMAILSERVER),
            (
                "unexpected error accessing mailbox",
                "Apache James, AbstractPassCmdHandler.java 2026-08",
            ),
            ("user will be blocked for a while", _GROMOX),
            ("cannot get mailbox location", _GROMOX),
            ("failed to open/read inbox", _GROMOX),
            ("child crashed", _QMAIL),
            ("unable to scan $home/maildir", _QMAIL),
            ("unable to fork", _QMAIL),
            ("out of memory", f"{_QMAIL}; {_COURIER}"),
        ),
    ),
    *_rows(
        Reason.MALFORMED,
        "utf-8",
        (
            ("no username given", _DOVECOT),
            ("invalid parameters", _DOVECOT),
            ("invalid characters in md5", _DOVECOT),
            ("invalid base64", f"{_DOVECOT}; {_TWISTED}"),
            ("expected base64", _GREENMAIL),
            ("invalid auth response", _TWISTED),
            ("invalid sasl challenge", "Stalwart, crates/pop3 2026-08"),
            ("user first", _QMAIL),
            ("must give user command", _CYRUS),
            ("must give pass command", _CYRUS),
            ("username first", f"{_ZIMBRA}; {_GROMOX}"),
            ("please specify a user", _ZIMBRA),
            ("please specify a password", _ZIMBRA),
            ("user required", f"{_GREENMAIL}; {_TWISTED}"),
            ("user/pass required", _COURIER),
            ("user not yet set", "Perdition, pop3_in.c 2022-04"),
            ("syntax error", f"{_QMAIL}; {_CYRUS}"),
            ("invalid syntax", f"{_DAVMAIL}; {_GREENMAIL}"),
            ("required syntax", _GREENMAIL),
            ("missing argument", _CYRUS),
            ("missing apop argument", _UW),
            ("missing password argument", _UW),
            ("unexpected extra argument", _CYRUS),
            ("too many arguments", "Stalwart, crates/pop3 2026-08"),
            ("invalid arguments", _MAILUTILS),
            ("incorrect argument", _SOLID),
            ("wrong parameter", _DBMAIL),
            ("command parameter error", _GROMOX),
            ("malformed command", _WILDDUCK),
            ("not a valid md5 hash", _DBMAIL),
            ("mechanism not specified", _ZIMBRA),
            ("wrong command mode", _DBMAIL),
            ("incorrect state", _MAILUTILS),
            ("invalid state", _DAVMAIL),
            ("in current state", _HMAILSERVER),
            ("valid in this state", "Exchange: github.com/jstedfast/MailKit/issues/391"),
            ("valid for this state", _GREENMAIL),
            ("bad sequence of commands", "RFC 5321 section 4.2.3, for SMTP, borrowed"),
            ("line too long", f"{_HMAILSERVER}; {_UW}"),
            ("exceed maximal line length", "Apache James, POP3SessionImpl.java 2026-08"),
            ("argument too long", _MAILUTILS),
            ("username too long", f"{_SOLID}; Kopano, gateway/POP3.cpp 2021-11"),
            ("password too long", "Kopano, gateway/POP3.cpp 2021-11"),
            ("length too long", _ZIMBRA),
            ("null command", f"{_UW}; Perdition, pop3_in.c 2022-04"),
        ),
    ),
    *_rows(
        Reason.UNSUPPORTED,
        "utf-8",
        (
            ("unknown command", f"{_DOVECOT}; {_SOLID}; {_ZIMBRA}; {_DAVMAIL}"),
            ("unknown protocol command", _TWISTED),
            ("unknown authorization state command", _UW),
            (
                "invalid command",
                f"nginx, ngx_mail_pop3_handler.c 2026-08; {_COURIER}; {_MAILUTILS}",
            ),
            ("unrecognized command", _CYRUS),
            ("unrecognized authentication type", "RFC 1734 section 2"),
            ("unknown auth method", _PMAILD),
            ("command unknown", _GROMOX),
            ("command not accepted", _WILDDUCK),
            ("bad command", _WILDDUCK),
            ("command not recognized", _GREENMAIL),
            ("command not understood", _DBMAIL),
            ("does not compute", _DBMAIL),
            ("not implemented", _SOLID),
            ("(yet) implemented", "Kopano, gateway/POP3.cpp 2021-11"),
            ("unimplemented", _QMAIL),
            ("must be one of", "Perdition, pop3_in.c 2022-04"),
            ("not supported", f"{_UW}; {_ZIMBRA}; {_DBMAIL}; {_GREENMAIL}"),
            ("unsupported", f"{_DOVECOT}; {_TWISTED}"),
            ("no auth mechanisms", _DBMAIL),
            ("no mechanism available", _SASL),
            ("mechanism too weak", _SASL),
            ("authentication not allowed", _SOLID),
            ("not allowed to authenticate yourself through", _SOLID),
        ),
    ),
)
"""All built-in rows, in the order in which they are asked."""
