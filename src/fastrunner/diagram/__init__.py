"""Support: workflow documents as pictures.

    document -> graph -> mermaid, svg, or JSON for the console

Rule: pure functions of a validated document; nothing here reads, fetches or compiles.
"""
