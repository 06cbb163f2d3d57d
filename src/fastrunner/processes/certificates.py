"""Support: the certificate files that a worker needs, as it finds them when it starts.

They are read anew by every worker, so that a restart of the workers takes up a new certificate; whoever writes one may
be just about it. So what a worker serves with is proved before it serves, and before its predecessor is asked to go.
"""

from pathlib import Path

from fastrunner.config import Config, check_authorities, check_certificates
from fastrunner.processes.link import ExitCode, StartError
from fastrunner.service.transport.call_queue import TlsFiles


def read_certificates(config: Config) -> TlsFiles | None:
    """What to serve with; None without TLS. Raises StartError if a file, that of callbacks included, is unusable."""
    try:
        if config.callback_ca_file is not None:
            check_authorities("FASTRUNNER_CALLBACK_CA_FILE", config.callback_ca_file)
        certificate, key, authorities = config.tls_certificate_file, config.tls_key_file, config.tls_client_ca_file
        if certificate is None or key is None:
            return None
        files = _read(certificate, key, authorities)
        check_certificates(certificate, key, authorities)
        if files != _read(certificate, key, authorities):
            raise ValueError(f"FASTRUNNER_TLS_CERTIFICATE_FILE={certificate}: it is just being written")
    except (OSError, ValueError) as error:
        raise StartError(ExitCode.BOOT, str(error)) from None
    return files


def _read(certificate: Path, key: Path, authorities: Path | None) -> TlsFiles:
    return TlsFiles(
        certificate=certificate.read_bytes(),
        key=key.read_bytes(),
        client_authorities=None if authorities is None else authorities.read_bytes(),
    )
