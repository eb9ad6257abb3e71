"""What an export that fails raises."""


class ExportTrouble(OSError):
    """Bans cannot be exported: one line that says why, and what to change."""
