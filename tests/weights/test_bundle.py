"""OpenSSF bundles of exported folders, verified by its own program too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import subprocess
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
import pytest

from tailrace.errors import SettingsError, UpdateRefused
from tailrace.weights import bundle, folder
from tailrace.weights.trust import new_key
from tests.weights.models import FILES, model


def _key(file: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    file.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    file.with_suffix(".pub").write_bytes(public)
    return file


def test_a_signed_folder_verifies_with_any_tool(tmp_path: Path) -> None:
    key, exported = _key(tmp_path / "key"), tmp_path / "model"
    folder.write(exported, model(), FILES)
    made = bundle.sign(exported, key)
    assert made == tmp_path / "model.sig"
    bundle.verify(exported, tmp_path / "key.pub")
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(exported)]
    command += ["--signature", str(made), "--public_key", str(tmp_path / "key.pub")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    _key(tmp_path / "other")
    with pytest.raises(UpdateRefused, match="signature"):
        bundle.verify(exported, tmp_path / "other.pub")


@pytest.mark.parametrize(
    "change",
    [
        lambda exported: folder.write(exported, model(1), FILES),
        lambda exported: folder.write(exported, model(), {}),
        lambda exported: (exported / "more.txt").write_text("x"),
        lambda exported: exported.with_name("model.sig").write_text("{}"),
        lambda exported: exported.with_name("model.sig").unlink(),
    ],
)
def test_what_was_changed_is_refused(tmp_path: Path, change: Callable[[Path], object]) -> None:
    key, exported = _key(tmp_path / "key"), tmp_path / "model"
    folder.write(exported, model(), FILES)
    bundle.sign(exported, key)
    change(exported)
    with pytest.raises(UpdateRefused, match="signature"):
        bundle.verify(exported, tmp_path / "key.pub")


def test_another_kind_of_key_is_said(tmp_path: Path) -> None:
    new_key(tmp_path / "ed25519")
    for key in (tmp_path / "ed25519", tmp_path / "nothing"):
        with pytest.raises(SettingsError, match="elliptic"):
            bundle.sign(tmp_path, key)
        with pytest.raises(SettingsError, match="elliptic"):
            bundle.verify(tmp_path, key.with_name(key.name + ".pub"))
