"""Who made a manifest: Ed25519 signatures over its value, byte for byte as it lies on the log.

    tailrace-signature   64 bytes
    tailrace-key         the key's id: the first 16 hex digits of SHA-256 of its 32 public bytes

The manifest names its base's digest, its own, and the SHA-256 of its stream, so what is signed is
the weights and their history. The publisher signs (:class:`Signer`), every reader with keys refuses
what does not verify (:class:`Trust`). Keys are PEM files, as ``tailrace keys new`` and ``openssl
genpkey -algorithm ed25519`` make them. cryptography is the extra ``tailrace[weights]``, imported on
first use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import errno
from hashlib import sha256
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrace.errors import SettingsError, UpdateRefused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE = "tailrace-signature"
KEY = "tailrace-key"

_ID_LENGTH = 16


class Signer:
    """Signs with the private key of a file. Raises SettingsError when it holds none."""

    def __init__(self, file: Path) -> None:
        key = _load(file)
        if not hasattr(key, "sign"):
            raise SettingsError(f"{file}: a public key cannot sign")
        self._key: Ed25519PrivateKey = key
        self.id = key_id(key.public_key())

    def headers(self, value: bytes) -> dict[str, bytes]:
        """What goes beside a record's value."""
        return {SIGNATURE: self._key.sign(value), KEY: self.id.encode()}


class Trust:
    """The keys whose manifests are taken: public (or private) key files, several while a key is
    being replaced. Raises SettingsError when a file holds none."""

    def __init__(self, files: Iterable[Path | str]) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {}
        for file in files:
            key = _public(_load(Path(file)))
            self._keys[key_id(key)] = key

    def check(self, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        """Raises UpdateRefused: ``unsigned``, ``unknown_key``, or ``signature`` (these bytes are
        not what the key signed)."""
        from cryptography.exceptions import InvalidSignature

        signature, name = headers.get(SIGNATURE), headers.get(KEY, b"").decode("ascii", "replace")
        if value is None or not signature:
            raise UpdateRefused("unsigned", f"trusted are {sorted(self._keys)}")
        key = self._keys.get(name)
        if key is None:
            raise UpdateRefused("unknown_key", f"{name[:40]!r}, trusted are {sorted(self._keys)}")
        try:
            key.verify(signature, value)
        except InvalidSignature:
            raise UpdateRefused("signature", f"not by key {name}") from None

    def signed(self, value: bytes | None, headers: Mapping[str, bytes]) -> bool:
        """Whether one of the keys signed it."""
        try:
            self.check(value, headers)
        except UpdateRefused:
            return False
        return True

    def stranger(self, headers: Mapping[str, bytes]) -> str | None:
        """The id of the key that is said to have signed a record, where it is none of these. That
        cannot be verified."""
        name = headers.get(KEY, b"").decode("ascii", "replace")[:_ID_LENGTH]
        return name if headers.get(SIGNATURE) and name and name not in self._keys else None


def new_key(file: Path) -> str:
    """Write a fresh private key to ``file`` (PEM, for its owner alone) and its public key to
    ``file.pub``. Returns the key's id. Raises FileExistsError and leaves what is there."""
    _import()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public_file = file.with_name(file.name + ".pub")
    if public_file.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(public_file))
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public_text = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for path, content, mode in ((file, text, 0o600), (public_file, public_text, 0o644)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as opened:
            opened.write(content)
            os.fsync(opened.fileno())
    return key_id(key.public_key())


def id_of(file: Path) -> str:
    """The id of the key in a file, private or public. Raises SettingsError when it holds none."""
    return key_id(_public(_load(file)))


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of SHA-256 of the key's 32 bytes."""
    return sha256(key.public_bytes_raw()).hexdigest()[:_ID_LENGTH]


def _public(key: Any) -> Ed25519PublicKey:
    found: Ed25519PublicKey = key.public_key() if hasattr(key, "sign") else key
    return found


def _load(file: Path) -> Any:
    """An Ed25519 key, private or public."""
    _import()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    try:
        text = file.read_bytes()
        if b"PRIVATE" in text:
            key: Any = serialization.load_pem_private_key(text, None)
        else:
            key = serialization.load_pem_public_key(text)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(f"{file}: no key in PEM without a password") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        raise SettingsError(f"{file}: not an Ed25519 key")
    return key


def _import() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise SettingsError(
            "signatures need cryptography: pip install 'tailrace[weights]'"
        ) from None
