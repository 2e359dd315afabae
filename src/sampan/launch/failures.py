"""What a start or an exec that went wrong is told as."""

from __future__ import annotations

import errno

from sampan import messages
from sampan.errors import InvalidRequest, SampanError, StepFailed, Unsupported


def failed(error: BaseException) -> messages.Failed:
    """Return what the daemon hears of an error."""
    if isinstance(error, StepFailed):
        return messages.Failed(step=error.step, code=error.code, text=error.text or str(error))
    if isinstance(error, OSError):
        name = f"{error.filename!s}: " if error.filename else ""
        return messages.Failed(step="start", code=error.errno or 0, text=f"{name}{error.strerror}")
    if isinstance(error, InvalidRequest | Unsupported):
        return messages.Failed(step="start", code=errno.EINVAL, text=str(error))
    text = str(error) if isinstance(error, SampanError) else f"{type(error).__name__}: {error}"
    return messages.Failed(step="start", code=0, text=text)
