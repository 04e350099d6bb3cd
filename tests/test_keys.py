"""Key files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from wackamole.keys import KeyRefused, read, read_all, write_new


def test_a_new_key_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "web.key"
    write_new(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(read(file)) == 64
    other = tmp_path / "other.key"
    write_new(other)
    assert read(file) != read(other)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "web.key"
    write_new(file)
    before = read(file)
    with pytest.raises(KeyRefused, match="never overwritten"):
        write_new(file)
    assert read(file) == before


def test_what_is_wrong_with_a_key_is_said_and_the_key_is_not(tmp_path: Path) -> None:
    file = tmp_path / "web.key"
    with pytest.raises(KeyRefused, match="cannot be read"):
        read(file)
    with pytest.raises(KeyRefused, match="cannot be created"):
        write_new(tmp_path / "no" / "web.key")
    file.write_text("secretsecretsecret")
    file.chmod(0o640)
    with pytest.raises(KeyRefused, match="can be read by others") as caught:
        read(file)
    assert "secretsecret" not in str(caught.value)
    file.chmod(0o600)
    assert read(file) == b"secretsecretsecret"
    file.write_text("short")
    with pytest.raises(KeyRefused, match="5 bytes"):
        read(file)
    file.write_text("x" * 5000)
    with pytest.raises(KeyRefused, match="16 to 4096"):
        read(file)


def test_a_file_may_have_two_keys_of_which_the_first_is_used(tmp_path: Path) -> None:
    file = tmp_path / "web.key"
    write_new(file)
    (old,) = read_all(file)
    file.write_text(f"{'n' * 32}\n\n {old.decode()} \n")
    assert read_all(file) == (b"n" * 32, old)
    file.write_text("a" * 16 + "\n" + "b" * 15)
    with pytest.raises(KeyRefused, match=r"web\.key:2: a key has at least 16 bytes"):
        read_all(file)
    file.write_text("\n".join(letter * 16 for letter in "abc"))
    with pytest.raises(KeyRefused, match="at most 2 keys"):
        read_all(file)
