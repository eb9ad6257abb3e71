"""Tells a webhook of each failed login, as JSON, without making anybody wait."""

import json
from io import BytesIO

from twisted.internet.protocol import Protocol
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http_headers import Headers

from pop3proxy.hooks.api import Hook

HEADERS = Headers({"Content-Type": ["application/json"], "User-Agent": ["pop3proxy"]})


class HangUp(Protocol):
    """Closes the connection: nobody wants the text of an answer, however long it is."""

    def connectionMade(self):
        """Close before anything is read."""
        self.transport.loseConnection()


class AnnounceWebhook(Hook):
    """Posts to ``url``, at most ``most`` at a time; the failures that are left out then are counted."""

    time_limit = 10.0

    def __init__(self, url, most=20):
        self.url = url.encode("ascii")
        self.most = most
        self.under_way = 0
        self.left_out = 0

    def start(self, reactor):
        """Begin with the reactor that connections are made with."""
        self.agent = Agent(reactor)

    async def pop3_login_failure(self, event):
        """Say who failed; a coroutine that only listens makes nobody wait."""
        if self.under_way == self.most:
            self.left_out += 1
            return
        message = {
            "time": event.ts,
            "address": event.c.orig_h,
            "user": event.user,
            "mechanism": event.mechanism,
            "reason": event.reason,
            "left_out": self.left_out,
        }
        self.left_out = 0
        self.under_way += 1
        try:
            await self.post(json.dumps(message).encode("ascii"))
        finally:
            self.under_way -= 1

    async def post(self, body):
        """Send a message. Raises what Agent raises, and RuntimeError for a refusal."""
        response = await self.agent.request(
            b"POST", self.url, HEADERS, FileBodyProducer(BytesIO(body))
        )
        response.deliverBody(HangUp())
        if response.code >= 400:
            raise RuntimeError(f"the webhook answered {response.code}")
