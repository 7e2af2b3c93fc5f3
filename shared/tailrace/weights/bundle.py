"""OpenSSF model-signing bundles: that an exported folder is, file by file, what its maker signed.

For who takes the folder away from the log, with tools that know nothing of tailrace:

    model_signing verify key FOLDER --signature FOLDER.sig --public_key KEY.pub

The bundle lies beside the folder. Its format asks for keys on elliptic curves (``openssl ecparam
-name prime256v1 -genkey -noout -out KEY``), not for the Ed25519 ones of :mod:`.trust`.
model-signing is the extra ``tailrace[signing]``, imported on first use. ``tailrace models export``
signs with it.
"""

from __future__ import annotations

from pathlib import Path

from tailrace.errors import SettingsError, UpdateRefused


def sign(folder: Path, key: Path) -> Path:
    """Sign every file of a folder with a private key's file. Returns the bundle, ``folder.sig``.

    Raises SettingsError for a key that is none on an elliptic curve.
    """
    try:
        from model_signing import signing
    except ImportError:
        raise SettingsError("bundles need model-signing: pip install 'tailrace[signing]'") from None
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(f"{key}: no private key on an elliptic curve ({error})") from None
    bundle = _beside(folder)
    config.sign(folder, bundle)
    return bundle


def verify(folder: Path, key: Path) -> None:
    """Compare a folder with the bundle beside it. Raises UpdateRefused (``signature``) where a file
    is another, missing or new, or the public key in ``key`` did not sign; SettingsError for a key
    that is none."""
    try:
        from model_signing import verifying
    except ImportError:
        raise SettingsError("bundles need model-signing: pip install 'tailrace[signing]'") from None
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(f"{key}: no public key on an elliptic curve ({error})") from None
    try:
        config.verify(folder, _beside(folder))
    except Exception as error:  # the library raises what its parsers and cryptography raise
        raise UpdateRefused("signature", f"{folder}: {error or type(error).__name__}") from None


def _beside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".sig")
