"""Stage 5, tasks: `call: mcp`: methods of Model Context Protocol servers, over streamable HTTP and over stdio.

arguments -> perform -> session -> outcome
               |-> bridge (HTTP, by the worker's client)
               |-> stdio (a process of `tasks/run`)
"""
