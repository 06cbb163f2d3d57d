"""Stage 5, tasks: `call: http`. `arguments` makes the request, `perform` sends it and follows `redirects`; `body` and
`codings` read what comes back, within the worker's `room`; `content`, `charsets` and `json_text` make a value of it;
`outcome`, `failures` and `patience` say what the workflow hears. `client` is where requests go and by way of what,
for whatever else speaks HTTP for a workflow, too.

Rules: only `perform` and `body` do I/O. What takes longer than a slice of the loop's time is a generator that `slices`
runs piece by piece. docs/http.md says what authors can rely on.
"""
