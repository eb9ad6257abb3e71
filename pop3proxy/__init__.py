"""A transparent POP3 inspection proxy: the version, and nothing else; each room is imported by name."""

__version__ = "0.1.0"
