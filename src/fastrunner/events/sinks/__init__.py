"""Stage 3, journal: what `emit` publishes on its way to sinks outside: `file` keeps what they have not taken, `sender`
sends it by `delivery`, `formats` makes requests of it.

Rule: an event is kept for its sinks in the commit that publishes it, and until every sink has taken it, for as long as
the outbox keeps events. A sink gets each event at least once, in order.
"""
