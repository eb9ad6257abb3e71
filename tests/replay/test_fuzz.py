"""A short run of what ``make fuzz`` does at length."""

import os
from pathlib import Path

import pytest

from pop3proxy.replay.run import Replay

from . import fuzz

COUNT = 2_000 if os.environ.get("CI") else 400


@pytest.mark.parametrize("make", [fuzz.a_capture, fuzz.a_session])
def test_damage_does_not_crash_hang_or_grow(make: object, tmp_path: Path) -> None:
    assert callable(make)
    fuzz.hunt(make, COUNT, 1, tmp_path / "capture")


def test_a_session_that_is_left_open_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Replay, "run", lambda self, frames: self.flows.take(self.decoder.decode(frames))
    )
    with pytest.raises(fuzz.Failed, match="are left"):
        fuzz.hunt(fuzz.a_session, COUNT, 1, tmp_path / "capture")


def test_growth_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([1, fuzz.MAX_GROWTH + 2])
    monkeypatch.setattr(fuzz, "resident", lambda: next(sizes))
    monkeypatch.setattr(fuzz, "WARM", 3)
    with pytest.raises(fuzz.Failed, match="grew"):
        fuzz.hunt(fuzz.a_session, 5, 1, tmp_path / "capture")
