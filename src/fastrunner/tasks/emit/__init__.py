"""Stage 5, tasks: `emit`. `arguments` makes the event, `perform` publishes it, `outcome` says what the workflow hears.

Rule: an event's id is made from the effect's key, so publishing it again after a crash publishes nothing twice.
docs/cloudevents.md says what authors can rely on.
"""
