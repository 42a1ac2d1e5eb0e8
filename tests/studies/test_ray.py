"""The same study on a local Ray."""

import subprocess
import sys

import pytest

from layerstill.errors import UserError
from tests.studies.small import comparable, make_place, run_here, write_study


def test_without_ray_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "layerstill.studies.ray", raising=False)
    with pytest.raises(UserError, match=r"ray is not installed; pip install 'layerstill\[ray\]'"):
        import layerstill.studies.ray  # noqa: F401


@pytest.mark.slow
def test_ray_gives_the_records_that_workers_give(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'layerstill[ray]'")
    from tests.studies.test_run import read_records

    place = make_place(tmp_path)
    file = write_study(
        place, axes={"recipe": ["kd", {"name": "broken", "recipe": "kd", "set": {"stages.0.learning_rate": 1e30}}]}
    )
    here, _ = run_here(file, tmp_path / "here")
    command = [sys.executable, "-m", "layerstill", "study", str(file), "--output", str(tmp_path / "ray")]
    done = subprocess.run([*command, "--ray", "local", "--jobs", "2"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert comparable(read_records(tmp_path / "ray")) == comparable(here)
    assert [r["status"] for r in here] == ["finished", "failed"]
