"""How the command starts: fast, and isolated from whoever calls it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPAN = Path(sys.executable).with_name("sampan")


def test_p12_nothing_of_the_callers_runs(tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__ + chr(10))\n"
    for name in ("json", "ctypes", "socket", "sampan", "msgspec", "usercustomize", "sitecustomize", "http"):
        (tmp_path / f"{name}.py").write_text(trap)
    site = tmp_path / "home/.local/lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (site / "trap.pth").write_text(f"import os; {trap}")
    (tmp_path / "startup.py").write_text(trap)
    environment = {
        **os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "startup.py"), "PYTHONINSPECT": "1",
        "PYTHONHOME": str(tmp_path), "HOME": str(tmp_path / "home"), "PYTHONUSERBASE": str(tmp_path / "home/.local"),
    }  # fmt: skip
    for words in (["version", "--client"], ["-H", f"unix://{tmp_path}/none", "ps"], ["-H", f"unix://{tmp_path}/none", "run", "x"]):
        subprocess.run([SAMPAN, *words], cwd=tmp_path, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL)

    assert not (tmp_path / "ran").exists()
    done = subprocess.run([SAMPAN, "version", "--client"], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert b"Client: Sampan" in done.stdout


def test_p12_no_variable_of_the_callers_changes_what_the_interpreter_does(tmp_path: Path) -> None:
    """Each by itself: a trap as module, hook, archive, cache or profile, and the commands that start another interpreter."""
    trap = f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__ + chr(10))\n"
    for name in ("trap", "sitecustomize", "encodings/__init__", "sampan/__init__", "warnings", "readline"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(trap)
    with zipfile.ZipFile(tmp_path / "python311.zip", "w") as packed:
        packed.writestr("encodings/__init__.py", trap)
        packed.writestr("sampan/__init__.py", trap)
    here = str(tmp_path)
    for variable, value in {
        "PYTHONPATH": f"{here}:{here}/python311.zip", "PYTHONBREAKPOINT": "trap.run", "PYTHONWARNINGS": "error::trap.Category",
        "PYTHONPYCACHEPREFIX": here, "PYTHONPLATLIBDIR": here, "PYTHONCASEOK": "1", "PYTHONSAFEPATH": "", "PYTHONEXECUTABLE": here,
        "PYTHONHOME": here, "PYTHONUSERBASE": here, "PYTHONIOENCODING": "trap", "PYTHONMALLOC": "debug", "PYTHONDUMPREFS": "1",
        "PYTHONOPTIMIZE": "2", "PYTHONVERBOSE": "1", "PYTHONPROFILEIMPORTTIME": "1", "PYTHONINSPECT": "1", "VIRTUAL_ENV": here,
        "__PYVENV_LAUNCHER__": here, "PYTHON_GIL": "0", "PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1", "ENV": f"{here}/trap.py",
        "BASH_ENV": f"{here}/trap.py", "PATH": f"{here}:/usr/bin:/bin", "CDPATH": here, "IFS": "/",
    }.items():  # fmt: skip
        done = subprocess.run([SAMPAN, "version", "--client"], cwd=tmp_path, env={**os.environ, variable: value},
                              capture_output=True, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
        assert done.returncode == 0 and done.stdout.startswith(b"Client: Sampan") and done.stderr == b"", (variable, done)
    assert not (tmp_path / "ran").exists()


def test_p12_no_folder_that_modules_come_from_is_open_to_others() -> None:
    """What anybody may write is not where root's modules come from: the folders, and those above them."""
    code = "import sys; from sampan.cli import main; print(*sys.path, main.__file__, sep=chr(10))"
    done = subprocess.run([Path(sys.executable), "-IBc", code], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        for place in (Path(line), *Path(line).parents):
            if place.exists():
                found = place.stat()
                assert not found.st_mode & 0o002 or found.st_mode & 0o1000, place  # /tmp's bit: nobody replaces others' files


@pytest.mark.slow
def test_version_client_takes_no_more_than_eighty_milliseconds() -> None:
    def once() -> float:
        """The processor's time, which does not depend on who else is at work on this machine."""
        child = subprocess.Popen([SAMPAN, "version", "--client"], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        return used.ru_utime + used.ru_stime

    assert min(once() for _ in range(10)) <= 0.08


def test_starting_loads_neither_http_nor_json_nor_argparse() -> None:
    code = "import sys; from sampan.cli.main import main; main(['version', '--client']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-IBSc", f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}]; {code}"],
                          capture_output=True, text=True, check=True)  # fmt: skip

    loaded = set(done.stderr.split())
    assert not loaded & {
        "json",
        "http.client",
        "msgspec",
        "argparse",
        "asyncio",
        "aiohttp",
        "ssl",
        "rich",
        "subprocess",
        "typing_extensions",
    }


def test_a_closed_pipe_is_no_traceback() -> None:
    done = subprocess.run(["sh", "-c", f"{SAMPAN} --help | true"], capture_output=True, check=False)
    assert done.stderr == b""
