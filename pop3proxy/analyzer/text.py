"""Turns bytes of the wire into the text of events, losslessly; nothing else."""


def decode(data: bytes) -> str:
    """Decode as UTF-8; what is not UTF-8 is kept by surrogateescape, so that encoding gives it back."""
    return data.decode("utf-8", "surrogateescape")
