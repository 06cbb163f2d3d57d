"""Support: whether certificates are valid now, by their dates.

Rule: said and not refused: whoever checks a certificate decides, and a clock may be wrong.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path

from fastrunner.base.clock import wall_ms

__all__ = ["warn_of_dates"]

_log = logging.getLogger(__name__)


def warn_of_dates(variable: str, file: Path | None, *, is_chain: bool) -> None:
    """Logs a warning with the variable, the file, the date and what to do, if what a PEM file has is not valid now: of
    a chain any certificate, of authorities, which are often many, all of them."""
    if file is None:
        return
    # It takes a worker's memory: only where there are certificates.
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError):
        # Whether they can be used at all is for those who use them.
        return
    now = datetime.fromtimestamp(wall_ms() / 1000, UTC)
    wrong = [each for each in found if not each.not_valid_before_utc <= now <= each.not_valid_after_utc]
    if not wrong or (not is_chain and len(wrong) < len(found)):
        return
    if wrong[0].not_valid_after_utc < now:
        when = f"has ended at {wrong[0].not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        remedy = "renew it: a changed file is taken up by itself"
    else:
        when = f"begins only at {wrong[0].not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        remedy = "take one that is valid, or see to this machine's clock"
    _log.warning("%s=%s: a certificate %s, and whoever checks it refuses it; %s", variable, file, when, remedy)
