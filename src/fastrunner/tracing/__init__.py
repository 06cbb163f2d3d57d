"""Support: traces of executions, for OpenTelemetry.

    context.py    where in a trace something is: W3C's headers, ids, what goes along with calls
    span.py       a span as plain data, and the forms it is stored in
    execution.py  the spans of one execution, told by what happens to it
    tracer.py     which executions are traced; the queue of spans on their way out
    kept.py       spans on their way to the collector, in a file: where no shard has them
    otlp.py       the exporter: the one module that knows OpenTelemetry's messages

Theory of operation: whether an execution is traced is decided once, when it is accepted, and stored with it. Ids of
spans follow from the trace, the execution and what the span is about, so what is performed again after a crash is the
same span again. What ends with a step of an execution is committed with that step and stays in its shard until the
collector has it: so no span is missing that another one hangs on, whenever the process dies.

Rules: who does not trace has nothing of this but `None`; an execution that is not sampled costs one random number. No
span holds data of a workflow: ids, names, kinds, statuses and numbers only.
"""
