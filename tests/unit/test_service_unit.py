"""The Ansible module service_unit, less systemd."""

from __future__ import annotations

import importlib.util
import stat
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / "ansible" / "plugins" / "modules" / "service_unit.py"


def test_a_service_sees_whether_it_has_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an earlier run has made the folder for root alone."""
    spec = importlib.util.spec_from_file_location("service_unit", MODULE)
    assert spec and spec.loader
    service_unit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service_unit)
    state = tmp_path / "millrace" / "fingerprints"
    state.parent.mkdir(mode=0o700)
    monkeypatch.setattr(service_unit, "STATE", state)
    service_unit.have_records()
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (state.parent, state)] == [0o755, 0o755]
