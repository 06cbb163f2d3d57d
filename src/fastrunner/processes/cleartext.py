"""Support: what proves somebody and goes over a network in clear, as far as the settings tell.

Rule: said and not refused, because something before the runner may have TLS.
"""

from fastrunner.base.checks import is_loopback
from fastrunner.config import Config

__all__ = ["secrets_in_clear"]


def secrets_in_clear(config: Config) -> list[str]:
    """A sentence for each way on which others may read a token or a key, with what to set."""
    sentences = []
    ports = (
        ("GRPC", config.grpc_host, config.tls_certificate_file, "FASTRUNNER_TLS_CERTIFICATE_FILE"),
        ("HTTP", config.http_host, config.http_tls, "FASTRUNNER_HTTP_TLS=true"),
    )
    for name, host, has_tls, remedy in ports:
        if (config.callers_file or config.jwt_issuer) and not has_tls and not is_loopback(host):
            sentences.append(
                f"FASTRUNNER_{name}_HOST={host} takes bearer tokens from other machines without TLS: whoever reads "
                f"them on their way can call with them; set {remedy}, or see to it that something before it has TLS"
            )
    endpoint = config.stigmer_service_endpoint
    if endpoint and config.stigmer_service_api_key and not config.stigmer_service_use_tls:
        host = endpoint.rpartition(":")[0]
        if not is_loopback(host):
            sentences.append(
                f"STIGMER_SERVICE_USE_TLS=false sends STIGMER_SERVICE_API_KEY to {host} without TLS: whoever reads "
                "it on its way can report progress with it; set STIGMER_SERVICE_USE_TLS=true"
            )
    return sentences
