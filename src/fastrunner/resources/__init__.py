"""Stage 2, compile: texts from elsewhere that documents need before anything runs: functions, by URL or of catalogs.

    the core tells what is needed -> Resolver -> an HTTP server, or a file below the one folder that is open
                                             \\-> texts, kept with the document that was compiled with them

Rules: one resolver for all kinds of texts. Requests go where calls may go, and are bounded in size, number and time.
Where nothing can be had the document is refused, where something may be had later it should come again; either says
which URL it was and why. Nothing is kept here: each document is compiled with what there is at its time.
"""
