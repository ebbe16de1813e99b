"""The ledger is on the disk before anything happens, whoever dies, and whoever else writes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from soong.errors import NotFoundError, SoongError
from soong.lease.lease import make_lease
from soong.lease.ledger import Ledger, Phase, Rental, clear_held, held, open_ledger

NOW = 1_800_000_000.0


def a_rental(number: int = 1, **fields: object) -> Rental:
    lease = make_lease(owner="ada", now=NOW, hours=4, cap_hours=8, lease_id=f"{number:010x}")
    plain = {
        "lease": lease,
        "cloud": "lambda",
        "account": "abc",
        "name": f"box-{number}",
        "model": "llama-3.1-8b",
        "gpu": "a10-24gb",
        "gpu_count": 1,
        "instance_type": "gpu_1x_a10",
        "region": "us-east-1",
        "usd_per_hour": 1.29,
        "asked_at": NOW + number,
    }
    return Rental(**{**plain, **fields})  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


def test_what_is_written_is_read_by_the_next_process(file: Path) -> None:
    with Ledger(file) as ledger:
        ledger.add(a_rental())
        ledger.change(
            a_rental().id,
            "granted",
            NOW + 5,
            phase="granted",
            instance_id="i-1",
            detail={"instance_id": "i-1"},
        )
    with Ledger(file) as ledger:
        found = ledger.get(a_rental().id)
        assert (found.phase, found.instance_id, found.lease) == ("granted", "i-1", a_rental().lease)
        assert [(event.kind, event.at) for event in ledger.events(found.id)] == [
            ("asked", NOW + 1),
            ("granted", NOW + 5),
        ]
        assert ledger.open_rentals() == (found,)


def test_nobody_else_may_read_it(file: Path) -> None:
    with Ledger(file) as ledger:
        ledger.add(a_rental())
        for one in file.parent.iterdir():
            assert one.stat().st_mode & 0o077 == 0, one


def test_a_record_survives_the_kill_of_its_writer(file: Path) -> None:
    """The line after `add` never runs, and the intent is there all the same."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.lease.test_ledger import a_rental\n"
        "from soong.lease.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "ledger.add(a_rental())\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", code, str(file)], cwd=root, check=False)
    assert ended.returncode == -signal.SIGKILL
    with Ledger(file) as ledger:
        assert ledger.get(a_rental().id).phase == "asked"


def test_processes_that_write_at_once_lose_nothing(file: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.lease.test_ledger import a_rental\n"
        "from soong.lease.ledger import Ledger\n"
        "first = int(sys.argv[2])\n"
        "with Ledger(Path(sys.argv[1])) as ledger:\n"
        "    for number in range(first, first + 20):\n"
        "        ledger.add(a_rental(number))\n"
        "        ledger.change(a_rental(number).id, 'granted', 1.0, phase='granted')\n"
    )
    root = Path(__file__).parents[2]
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(file), str(first)], cwd=root)
        for first in (100, 200, 300)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    with Ledger(file) as ledger:
        assert len(ledger.open_rentals()) == 60
        assert {rental.phase for rental in ledger.open_rentals()} == {"granted"}


def test_what_is_over_stays_over(file: Path) -> None:
    with Ledger(file) as ledger:
        ledger.add(a_rental())
        ledger.change(a_rental().id, "ended", NOW + 9, phase="ended", ended_at=NOW + 9)
        after = ledger.change(a_rental().id, "granted", NOW + 10, phase="granted")
        assert after.phase == "ended"
        assert ledger.open_rentals() == ()


def test_a_change_that_fails_leaves_everything_as_it_was(file: Path) -> None:
    with Ledger(file) as ledger:
        ledger.add(a_rental())
        with pytest.raises(TypeError):
            ledger.change(a_rental().id, "granted", NOW, no_such_field=1)
        assert ledger.get(a_rental().id) == a_rental()
        assert [event.kind for event in ledger.events(a_rental().id)] == ["asked"]
        with pytest.raises(NotFoundError):
            ledger.change("ffffffffff", "granted", NOW)


def test_open_rentals_are_those_of_the_account(file: Path) -> None:
    with Ledger(file) as ledger:
        ledger.add(a_rental(1))
        ledger.add(a_rental(2, cloud="sandbox"))
        ledger.add(a_rental(3, account="other"))
        ledger.add(a_rental(4, phase="refused"))
        assert [one.name for one in ledger.open_rentals(cloud="lambda", account="abc")] == ["box-1"]
        assert [one.name for one in ledger.rentals()] == ["box-3", "box-2", "box-1"]
        assert len(ledger.rentals(refused=True)) == 4


def test_a_ledger_of_a_newer_soong_is_not_touched(file: Path) -> None:
    Ledger(file).close()
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO migrations (name) VALUES ('0999-from-the-future')")
    with pytest.raises(SoongError, match="newer soong"):
        Ledger(file)


def test_a_file_that_is_no_ledger(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("this is a letter to my aunt, not a database, and long enough to be read as one" * 20)
    with pytest.raises(SoongError) as caught:
        Ledger(file)
    assert str(file) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SoongError, match="cannot write"):
        Ledger(tmp_path / "state" / "ledger.sqlite")


def test_a_full_disk_is_said_before_anything_is_launched(file: Path) -> None:
    """A limit on the size of files stands for the full disk: the write fails, and the error says what to do."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.lease.test_ledger import a_rental\n"
        "from soong.errors import SoongError\n"
        "from soong.lease.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        "    ledger.add(a_rental())\n"
        "except SoongError as error:\n"
        "    print(error.hints[0])\n"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code, str(file)], cwd=root, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("df -h ")
    with Ledger(file) as ledger:
        assert ledger.open_rentals() == ()


def test_a_rental_is_held_by_one_until_it_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    code = (
        "import sys, time\n"
        "from soong.lease.ledger import held\n"
        "with held('0123456789') as alone:\n"
        "    print(alone, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with held("0123456789") as alone:
        assert alone
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with held("0123456789") as alone:
        assert not alone
    holder.kill()
    holder.communicate()
    with held("0123456789") as alone:
        assert alone


def test_costs_are_counted_from_the_call_to_the_end() -> None:
    rental = a_rental(asked_at=NOW)
    assert rental.cost_usd(NOW + 7200) == pytest.approx(2.58)
    assert a_rental(asked_at=NOW, ended_at=NOW + 3600, phase="ended").cost_usd(NOW + 99999) == pytest.approx(
        1.29
    )
    assert a_rental(phase="refused").cost_usd(NOW + 99999) == 0


def test_the_users_ledger_stands_in_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    with open_ledger() as ledger:
        assert ledger.file == tmp_path / "state" / "ledger.sqlite"


@pytest.mark.parametrize("later", ["ending", "ended", "refused"])
def test_a_start_that_finishes_does_not_undo_a_stop(file: Path, later: Phase) -> None:
    """The stop came from another process while the start was still looking the machine over."""
    rental = a_rental()
    with Ledger(file) as ledger:
        ledger.add(rental)
        ledger.change(rental.id, "stop-asked", 1.0, phase=later)
        after = ledger.change(rental.id, "ready", 2.0, phase="ready", address="198.51.100.2")
        assert (after.phase, after.address) == (later, "198.51.100.2")
        assert ledger.get(rental.id).phase == later


def test_a_lock_is_no_file_afterwards(sealed: Path) -> None:
    with held("0123456789") as alone, held("0123456789") as second:
        assert (alone, second) == (True, False)
    assert list((sealed / "state" / "held").iterdir()) == []
    with held("0123456789") as again:
        assert again
        clear_held(())
        assert len(list((sealed / "state" / "held").iterdir())) == 1, "one that is held stays"
