"""The tables: compiled ones are current, the user's rows lie over them and survive whatever happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from soong import tables, user_tables
from soong.errors import ConfigError, NotFoundError, SoongError, UsageError
from soong.gpus.gpu import Gpu
from soong.offers.offer import Offer

SOURCES = sorted(Path(tables.DATA).glob("*.toml"))


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    (tmp_path / "config").mkdir()
    return tmp_path / "config"


def offer(name: str = "gpu_1x_mine", **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "cloud": "garage",
        "instance_type": name,
        "gpu": "rtx4090-24gb",
        "gpu_count": 1,
        "usd_per_hour": 0.1,
        "as_of": "2026-11-23",
        "source": "the meter",
        "region": None,
    }
    return row | changes


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_compiled_table_is_current(source: Path) -> None:
    compiled = source.parent / "compiled" / f"{source.stem}.json"
    current = tables.compiled_from(source.stem, source.read_bytes())
    assert compiled.read_bytes() == current, "run `python -m soong.tables`"


def test_nothing_is_compiled_that_has_no_source() -> None:
    compiled = {path.stem for path in (Path(tables.DATA) / "compiled").glob("*.json")}
    assert compiled <= {path.stem for path in SOURCES} | {"listing"}


def test_without_a_user_table_the_packaged_rows_come_as_they_are() -> None:
    assert tables.rows("gpus", Gpu) is tables.packaged("gpus", Gpu)
    assert tables.user_rows("gpus", Gpu) == ()


def test_a_batch_does_not_read_the_users_table_twice(config: Path) -> None:
    user_tables.add_row("prices", offer(), Offer)
    assert tables.rows("prices", Offer) is tables.rows("prices", Offer)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[[gpu]]\nid = ", "not valid TOML"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"[[gpus]]\nid = 'x'\n", "`gpus`"),
        (b"gpu = 3\n", "[[gpu]]"),
        (b"gpu = [1]\n", "[[gpu]]"),
        (b"[[gpu]]\nid = 'mine'\n", "number 1 (`mine`)"),
        (b"[[gpu]]\nid = 'mine'\nmemory_byte = 1\n", "`memory_byte`"),
        (b"[[gpu]]\nid = 7\n", "number 1"),
        (b"gpu = " + b"[" * 100_000, "nested"),
        (b"[[gpu]]\nid = 'mine'\nmemory_bytes = " + b"9" * 5000, "not valid TOML"),
        (b"[[gpu]]\nid = 'mine'\nmemory_bytes = " + b"9" * 50, "number 1"),
        (b"#" * (tables.MOST_BYTES + 1), "larger"),
    ],
)
def test_a_broken_table_says_where(config: Path, content: bytes, complaint: str) -> None:
    path = config / "gpus.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        tables.rows("gpus", Gpu)
    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)
    assert any(str(path) in hint for hint in caught.value.hints)


def test_a_wrong_field_is_named_with_its_row(config: Path) -> None:
    user_tables.add_row("prices", offer("first"), Offer)
    text = (config / "prices.toml").read_text()
    (config / "prices.toml").write_text(
        text + text.replace("first", "second").replace("gpu_count = 1", 'gpu_count = "x"')
    )
    with pytest.raises(
        ConfigError, match=r"number 2 \(`garage second`\): `gpu_count`: Expected `int`, got `str`"
    ):
        tables.rows("prices", Offer)


def test_a_misspelt_field_gets_a_suggestion(config: Path) -> None:
    (config / "gpus.toml").write_text("[[gpu]]\nid = 'mine'\nmemory_byte = 1\n")
    with pytest.raises(ConfigError) as caught:
        tables.rows("gpus", Gpu)
    assert caught.value.hints[0] == "did you mean `memory_bytes`?"


def test_a_folder_in_the_tables_place_is_no_traceback(config: Path) -> None:
    (config / "gpus.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot read the table"):
        tables.rows("gpus", Gpu)


def test_reading_works_where_there_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_HOME", "/dev/null/nowhere")
    assert tables.rows("gpus", Gpu)


def test_added_rows_come_back_and_comments_stay(config: Path) -> None:
    path = config / "prices.toml"
    path.write_text("# my own prices\n")
    user_tables.add_row("prices", offer("one"), Offer)
    path.write_text(path.read_text().replace("gpu_count = 1", "gpu_count = 1  # just the one"))
    user_tables.add_row("prices", offer("two"), Offer)
    assert [row.instance_type for row in tables.user_rows("prices", Offer)] == ["one", "two"]
    assert "# my own prices" in path.read_text()
    assert "# just the one" in path.read_text()
    user_tables.remove_row("prices", "garage", "one")
    assert [row.instance_type for row in tables.user_rows("prices", Offer)] == ["two"]
    user_tables.remove_row("prices", "garage", "two")
    assert tables.user_rows("prices", Offer) == ()
    user_tables.add_row("prices", offer("three"), Offer)
    assert [row.instance_type for row in tables.user_rows("prices", Offer)] == ["three"]


def test_nested_tables_survive_the_round_trip(config: Path) -> None:
    row = {"id": "mine", "texts": {"good_for": ["code"], "none": None}, "repositories": [{"format": "bf16"}]}
    user_tables.add_row("models", row)
    user_tables.add_row("models", {"id": "other", "texts": {"good_for": ['quote " and \\ and \n']}})
    read = tables.raw_rows("models", str(config / "models.toml"))
    assert read[0] == {"id": "mine", "texts": {"good_for": ["code"]}, "repositories": [{"format": "bf16"}]}
    assert read[1]["texts"]["good_for"] == ['quote " and \\ and \n']


def test_the_same_row_twice_is_refused(config: Path) -> None:
    user_tables.add_row("prices", offer(), Offer)
    before = (config / "prices.toml").read_bytes()
    with pytest.raises(UsageError, match="already"):
        user_tables.add_row("prices", offer(usd_per_hour=9.0), Offer)
    assert (config / "prices.toml").read_bytes() == before


def test_a_bad_row_is_refused_before_anything_is_saved(config: Path) -> None:
    with pytest.raises(ConfigError, match="gpu_count"):
        user_tables.add_row("prices", offer(gpu_count=-1), Offer)
    assert list(config.iterdir()) == []


def test_removing_what_is_not_there(config: Path) -> None:
    with pytest.raises(NotFoundError, match="`nothing`"):
        user_tables.remove_row("models", "nothing")


def test_a_broken_table_is_never_written_over(config: Path) -> None:
    (config / "prices.toml").write_text("broken = [")
    with pytest.raises(ConfigError):
        user_tables.add_row("prices", offer(), Offer)
    assert (config / "prices.toml").read_text() == "broken = ["


def test_a_home_that_cannot_be_written_names_the_way_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOONG_HOME", str(tmp_path / "file"))
    with pytest.raises(SoongError) as caught:
        user_tables.add_row("prices", offer(), Offer)
    assert str(tmp_path / "file") in caught.value.message
    assert "SOONG_HOME" in caught.value.hints[0]


def test_a_link_to_the_table_stays_a_link(config: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfiles.toml").write_text("# kept elsewhere\n")
    (config / "prices.toml").symlink_to(tmp_path / "dotfiles.toml")
    user_tables.add_row("prices", offer(), Offer)
    assert (config / "prices.toml").is_symlink()
    assert "gpu_1x_mine" in (tmp_path / "dotfiles.toml").read_text()


ADD = """
import sys
from soong.user_tables import add_row
for number in range(int(sys.argv[2])):
    add_row("models", {"id": f"{sys.argv[1]}-{number}"})
"""

FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
from soong.errors import SoongError
from soong.user_tables import add_row
try:
    add_row("models", {"id": "new", "notes": "x" * 200})
except SoongError as error:
    print(type(error).__name__, error.message, error.hints)
"""


def test_writers_at_once_lose_nothing(config: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", ADD, name, "8"]) for name in ("a", "b", "c")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    ids = {row["id"] for row in tables.raw_rows("models", str(config / "models.toml"))}
    assert ids == {f"{name}-{number}" for name in "abc" for number in range(8)}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX resource limit")
def test_a_full_disk_leaves_the_old_table(config: Path) -> None:
    user_tables.add_row("models", {"id": "old"})
    before = (config / "models.toml").read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("SoongError cannot write")
    assert "SOONG_HOME" in done.stdout
    assert (config / "models.toml").read_bytes() == before
    assert {path.name for path in config.iterdir()} == {"models.toml", ".models.lock"}
