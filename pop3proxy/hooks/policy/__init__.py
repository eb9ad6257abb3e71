"""Hooks that decide what becomes of a session."""
