"""Stages 2 and 5: the bounds of what documents and their calls need from elsewhere."""

from typing import Final

RESOURCES_PER_DOCUMENT_MAX: Final = 32
"""Texts from elsewhere that one document needs, those that they need included: each is a request before anything
runs."""

RESOURCE_URL_SIZE_CHARS_MAX: Final = 2_048
"""A URL of one: it is the function's name in every event of it."""

RESOURCE_SIZE_BYTES_MAX: Final = 262_144
"""One text: a function is one task, and has a quarter of what a whole document may."""

RESOURCE_REDIRECTS_MAX: Final = 5
"""Redirects followed for one text: those of code hosts take one or two."""

RESOURCES_FETCH_S_MAX: Final = 20.0
"""Time in which all texts of a document are there, those that others need included: a caller waits for its answer."""

RESOURCES_FETCHED_AT_ONCE_MAX: Final = 64
"""Requests for texts that a worker makes at a time; more wait in order."""

RESOURCE_RETRY_S: Final = 2.0
"""When whoever submits a document should come again whose text could not be fetched for the moment."""

DESCRIPTIONS_PER_DOCUMENT_MAX: Final = 32
"""Descriptions that are kept with a document: the calls of what comes beyond ask for it."""

DESCRIPTIONS_PINNED_SIZE_BYTES_MAX: Final = 2_097_152
"""All descriptions that are kept with a document, which is stored with each version of them: twice its own size at
most. The calls of what comes beyond ask for it."""

DESCRIPTIONS_PIN_S_MAX: Final = 5.0
"""Time in which descriptions are there that are kept with a document: a caller waits for its answer, and the calls can
ask for what was late."""

DESCRIPTION_SIZE_BYTES_MAX: Final = 4_194_304
"""What describes a service, such as an OpenAPI document: the large ones of public services have some megabytes. 64 at a
time are 256 MiB."""

DESCRIPTIONS_KEPT_MAX: Final = 256
"""Descriptions that a worker keeps: far more services than one runner's workflows call."""

DESCRIPTIONS_KEPT_SIZE_BYTES_MAX: Final = 33_554_432
"""Memory that the texts of kept descriptions take, equal ones counted once: eight of the largest."""

DESCRIPTION_FRESH_S: Final = 60.0
"""How long a description is good without asking where its server says nothing of it: a change is seen in a minute, and
a workflow that calls ten thousand times asks once."""

DESCRIPTION_FRESH_S_MAX: Final = 3_600.0
"""The same where its server says more: somebody who has said a year by mistake waits an hour."""

DOCUMENTS_WANTING_KNOWN_MAX: Final = 1_000
"""Documents of which a worker knows what they need from elsewhere, so that the next submission asks for it at once."""
