"""Counts and bans that several proxies share through Redis or Valkey; the terms are those of store.py."""
