"""What verdicts do to the bytes of a session."""
