"""Key files, and ``tailrace keys``."""

from __future__ import annotations

from pathlib import Path
import stat

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
import pytest

from tailrace.cli import main
from tailrace.errors import SettingsError
from tailrace.weights.trust import Signer, Trust


def test_key_files(tmp_path: Path, keys: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "k"
    assert main(["keys", "new", str(file)]) == 0
    made = capsys.readouterr().out.strip()
    assert len(made) == 16 and made == Signer(file).id
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for one in (file, file.with_name("k.pub")):
        assert main(["keys", "id", str(one)]) == 0
        assert capsys.readouterr().out.strip() == made
    before = file.read_bytes()
    assert main(["keys", "new", str(file)]) == 1
    (tmp_path / "k").unlink()
    assert main(["keys", "new", str(file)]) == 1, "its public half is there"
    assert not file.exists() and before
    assert main(["keys", "new", str(tmp_path / "no" / "k")]) == 1
    assert "exists" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="cannot sign"):
        Signer(keys[0].with_name("key-0.pub"))


@pytest.mark.parametrize("content", [None, b"", b"noise", b"-----BEGIN PRIVATE KEY-----\nxx\n"])
def test_what_is_no_key_names_its_file(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "k"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=str(file)):
        Trust([file])
    assert main(["keys", "id", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ed448"
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    key = Ed448PrivateKey.generate()
    file.write_bytes(key.private_bytes(*pem, serialization.NoEncryption()))
    with pytest.raises(SettingsError, match="not an Ed25519 key"):
        Signer(file)
    locked = Ed25519PrivateKey.generate()
    file.write_bytes(locked.private_bytes(*pem, serialization.BestAvailableEncryption(b"word")))
    with pytest.raises(SettingsError, match="without a password"):
        Signer(file)
