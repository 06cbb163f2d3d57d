"""Stage 5, tasks: `call: asyncapi`. A described application's messages: published, or subscribed to. `clients` has one
module per protocol that speaks it, all with the same two functions.

docs/tasks.md says what authors can rely on.
"""
