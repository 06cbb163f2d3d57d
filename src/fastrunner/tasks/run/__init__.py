"""Stage 5, tasks: `run` of shells, scripts and containers. `arguments` makes the command line, `interpreters` finds its
program, `process` starts and ends it by way of `launcher`, in what `isolation` finds that the machine has: namespaces,
and `cgroups`. Containers are made and removed by `containers`, which speaks to podman or docker by way of `engine`, in
words that `container_line` finds. `outcome` says what the workflow hears; `perform` connects them.

Rules: a process gets what the document gives it and nothing of the runner: no variable, no descriptor, no network
unless that is allowed. It is killed whole. docs/tasks.md says what authors can rely on.
"""
