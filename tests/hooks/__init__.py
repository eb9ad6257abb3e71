"""Tests of the hooks, their delivery, and what they write."""
