"""A mail server, the proxy and a client in one process, so that a newcomer sees events in a minute."""
