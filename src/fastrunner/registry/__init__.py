"""Stage 3, journal: the registry: definitions of workflows by namespace, name and version.

Its truth is one file in the data directory that every worker reads and writes. Each look-up reads the file, so what one
worker has registered is there for all the others before its caller hears of it; plans are cached by each worker as
those of any other document.

Rules: a version never changes once it is registered, nor do the texts from elsewhere that it was registered with.
Executions keep the texts they were accepted with: deleting a version takes nothing from them.
"""
