"""Support: the only reader of the environment; one frozen settings object, built once and passed down.

    fields.py    how a setting is read
    settings.py  those of a runner        temporal.py  those of its distributed engine
    tracing.py   those of its traces
    runner.py    all of them: what must fit together, loading
    clients.py   those of the commands that talk to a runner
    stigmer.py   those of a Stigmer Service

A bad value refuses to start and names the variable, the value and what is allowed; so does a name that nobody reads.
Every field but a secret is also a flag of `fastrunner serve`; `docs/configuration.md` is generated from this package.
"""

from fastrunner.config.clients import (
    ClientSettings,
    NeighbourSettings,
    ReceiverSettings,
    load_client,
    load_stigmer,
    receiver_token,
    runner_ports,
    runner_target,
)
from fastrunner.config.fields import (
    Authentication,
    ConfigurationError,
    DataSettings,
    Environment,
    LogLevel,
    stigmer_folder,
)
from fastrunner.config.runner import (
    Config,
    engine_variables,
    flag_fields,
    load_config,
    load_data_settings,
    misspelt,
    quiet_grpc,
    secret_variables,
    shown_fields,
    variable_of,
)
from fastrunner.config.stigmer import StigmerSettings
from fastrunner.config.temporal import Reporting

__all__ = [
    "Authentication",
    "ClientSettings",
    "Config",
    "ConfigurationError",
    "DataSettings",
    "Environment",
    "LogLevel",
    "NeighbourSettings",
    "ReceiverSettings",
    "Reporting",
    "StigmerSettings",
    "engine_variables",
    "flag_fields",
    "load_client",
    "load_config",
    "load_data_settings",
    "load_stigmer",
    "misspelt",
    "quiet_grpc",
    "receiver_token",
    "runner_ports",
    "runner_target",
    "secret_variables",
    "shown_fields",
    "stigmer_folder",
    "variable_of",
]
