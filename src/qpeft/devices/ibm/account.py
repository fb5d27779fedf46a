"""The user's account at IBM, from wherever its key is kept; the key stays out of every message."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qpeft.devices.secrets import told
from qpeft.errors import CredentialsError, DeviceError

if TYPE_CHECKING:
    from qiskit_ibm_runtime import QiskitRuntimeService

TOKEN_VARIABLE = "QPEFT_IBM_TOKEN"
KEYRING_SERVICE, KEYRING_USER = "qpeft", "ibm"
WHAT_TO_DO = (
    f"Set the environment variable {TOKEN_VARIABLE} to your API key, or store it once: `keyring set {KEYRING_SERVICE} "
    f"{KEYRING_USER}`, or qiskit_ibm_runtime.QiskitRuntimeService.save_account(token=...)."
)


def open_service(instance: str | None) -> QiskitRuntimeService:
    """The service, with the key of the environment, else of the keyring, else of the account that Qiskit has saved.

    Args: instance: name or CRN of the instance that pays; None to let the service choose.
    Raises: CredentialsError if there is no key or it is refused; DeviceError if the service cannot be reached.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService  # noqa: PLC0415
    from qiskit_ibm_runtime.accounts import AccountNotFoundError  # noqa: PLC0415

    token = find_token()
    try:
        return QiskitRuntimeService(token=token, instance=instance)
    except Exception as error:
        text, cause = told(error, [token])
        if _is_out_of_reach(error):
            raise DeviceError(f"IBM's service cannot be reached: {text}") from cause
        what = "There is no IBM account" if isinstance(error, AccountNotFoundError) else "IBM refused the account"
        raise CredentialsError(f"{what}: {text} {WHAT_TO_DO}") from cause


def find_token() -> str | None:
    """The key of the environment or of the keyring; None to use the account that Qiskit has saved.

    Raises: CredentialsError if the keyring is there and cannot be read.
    """
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return token
    try:
        import keyring  # noqa: PLC0415
        from keyring.errors import KeyringError, NoKeyringError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return keyring.get_password(KEYRING_SERVICE, KEYRING_USER) or None
    except NoKeyringError:  # the package without a place to keep anything
        return None
    except KeyringError as error:
        raise CredentialsError(f"The keyring cannot be read: {error}. {WHAT_TO_DO}") from error


def status_code(error: BaseException) -> int:
    """HTTP status that an error of the vendor goes back to; 0 if it goes back to none."""
    for link in _chain(error):
        code = getattr(link, "status_code", None)
        if isinstance(code, int) and code > 0:
            return code
        if type(link).__name__ == "IBMNotAuthorizedError":  # the vendor's name for 401, without a number
            return 401
    return 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it goes back to; contexts too, since the vendor hides what it wraps."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_out_of_reach(error: BaseException) -> bool:
    code = status_code(error)
    return code >= 500 or (code == 0 and any(isinstance(link, OSError) for link in _chain(error)))
