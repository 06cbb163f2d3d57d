"""Stage 5, tasks: how calls prove who calls: one module per scheme, and `keyring`, which kinds of calls reach them
through. `tokens` keeps what oauth2 and oidc obtain.

Rules: what proves a caller is hidden from texts (`base.redaction`) before it is used, lies in memory alone, and goes to
the origin of the call it is for. Problems name fields and hosts, never a value.
"""
