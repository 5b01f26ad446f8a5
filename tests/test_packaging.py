"""What is built is what is needed: wheel and sdist hold every package, and an install of it works."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tracklayer import registry

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BACKENDS = sorted(p.name for p in (ROOT / "backends").iterdir() if (p / "__init__.py").exists())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return out


def modules_of(folder: Path) -> set[str]:
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }


def test_every_backend_folder_is_packaged_and_registered() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {f"backends/{name}" for name in BACKENDS} < set(packages)
    points = PROJECT["project"]["entry-points"]["tracklayer.backends"].values()
    assert set(BACKENDS) <= {point.partition(":")[0] for point in points}


def test_the_extra_all_holds_every_extra_but_dev() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = re.findall(r"[a-z]+", everything.partition("[")[2])
    assert set(named) == set(extras) - {"all", "dev"}


def test_a_backend_that_is_installed_while_a_process_runs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, info = tmp_path / "site", tmp_path / "late"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    assert "late" not in registry.registered()
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[tracklayer.backends]\nlate = tracklayer.null:backend\n")
    info.rename(site / "late-2.0.dist-info")
    assert registry.load("late").name == "disabled"


@pytest.mark.slow
def test_wheel_and_sdist_hold_every_module(built: Path) -> None:
    expected = modules_of(ROOT / "tracklayer")
    for name in BACKENDS:
        expected |= modules_of(ROOT / "backends" / name)
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert expected <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {name if name.startswith("tracklayer/") else f"backends/{name}" for name in expected} <= (inside)


@pytest.mark.slow
def test_an_installed_wheel_records_a_run(built: Path, tmp_path: Path) -> None:
    """Installed beside the dependencies of this environment, so that no registry is asked."""
    target = tmp_path / "site"
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    code = (
        f"import sys; sys.path[:0] = [{str(target)!r}]\n"
        "import tracklayer\n"
        f"assert tracklayer.__file__.startswith({str(target)!r}), tracklayer.__file__\n"
        "with tracklayer.init(backend='sqlite', dir='store') as run:\n"
        "    run.log({'a': 1.0}, step=0)\n"
        "print(tracklayer.open_store('store').run(run.id).metric('a').value.tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[1.0]"


@pytest.mark.parametrize(
    "module", ["numpy", "sqlalchemy", "wandb", "tensorboardX", "jax", "click", "rich", "psutil"]
)
def test_a_plain_import_pulls_in_no_heavy_package(module: str) -> None:
    code = f"import sys, tracklayer; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
