"""Stage 5, tasks: `call: openapi`: an operation of a document becomes a call of `call: http`, which performs it.

`documents` reads what describes the service, `document` finds its way in it, `version2` and `version3` make an
`operation` of it, with what `servers` and `security` say; `kept` keeps them. `arguments` puts a task's parameters where
the operation has them, in the `styles` and `bodies` of its parameters and bodies; `perform` hands all of it on.

Rules: everything but `perform` and `kept` is pure. A document comes from elsewhere: nothing in it is taken for what it
should be before it is looked at, and nothing is followed without a bound. docs/tasks.md says what authors can rely on.
"""
