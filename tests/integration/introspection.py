"""An OAuth 2.0 introspection service (RFC 7662): it knows the tokens ``token-of-<user>`` and no other.

A token may be longer, as real ones are: behind a dot it does not look.
"""

import json
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit


class Introspection(BaseHTTPRequestHandler):
    """Answers GET with the token in the query."""

    def do_GET(self) -> None:
        token = parse_qs(urlsplit(self.path).query)["token"][0]
        known, _, _ = token.partition(".")
        user = known.removeprefix("token-of-")
        answer = json.dumps({"active": user != known, "username": user}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing: standard error is the tests'."""
