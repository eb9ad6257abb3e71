"""Hands bans of addresses and networks to programs outside, such as a firewall."""
