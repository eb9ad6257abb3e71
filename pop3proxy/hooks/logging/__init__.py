"""Hooks that write events down."""
