"""Support: the bounds of the HTTP port."""

from typing import Final

HTTP_CONNECTIONS_MAX: Final = 512
"""Connections of the web process: probes, scrapes, consoles. Beyond it the one that has been idle for longest gives
way. If no client reads what /metrics answers, they take some hundred MiB."""

HTTP_HEAD_S_MAX: Final = 10.0
"""How long the head of a request may take to come, the first one from when the connection was made."""

HTTP_IDLE_S_MAX: Final = 30.0
"""How long a connection may be kept for the next request, or a client take to read an answer: twice the
usual interval between scrapes."""

HTTP_BODY_S_MAX: Final = 30.0
"""How long nothing of a body may come that is still to come: what proxies in front of servers wait, or half of it."""

HTTP_LOOK_INTERVAL_S: Final = 0.5
"""How often overdue connections are looked for."""

HTTP_SETTLE_S_MAX: Final = 0.5
"""How long a stopping web process still answers connections that it has accepted; new ones wait for its successor."""

HTTP_SETTLE_INTERVAL_S: Final = 0.02
"""How often it looks whether all are answered."""
