"""Stages 2 and 5: texts from elsewhere. What documents need before anything runs: functions, by URL or of catalogs. And
what their calls are described by.

    the core tells what is needed -> Resolver.fetch -> an HTTP server, or a file below the one folder that is open
    a call needs a description    -> Resolver.get   -^      \\-> texts: kept with the document that was compiled with
                                                                them; of calls, in memory, as long as they are good

Rules: one resolver for all kinds of texts. Requests go where calls may go, and are bounded in size, number and time.
Where nothing can be had the document is refused, or the call fails; where something may be had later it should come
again; either says which URL it was and why. Each document is compiled with what there is at its time.
"""
