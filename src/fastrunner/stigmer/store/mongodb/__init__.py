"""Support: the store on MongoDB, of any number of services at once.

    store.py      Store's methods     workflows.py  versions of workflows
    taking.py     events into it      counting.py   counters, moved in the background
    documents.py  what is kept, and how      database.py   the connection, indexes, what fails

Rules:
- One document is written at a time, atomically; between any two writes the service may die, another one may write, and
  whoever comes next goes on. Nothing relies on transactions, change streams or partial indexes.
- Writes wait for the majority and its journals, reads see what the majority has.
"""
