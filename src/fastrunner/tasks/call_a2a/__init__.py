"""Stage 5, tasks: `call: a2a`: methods of agents, as the Agent2Agent protocol 0.3 names them.

arguments -> card -> perform -> wire (0.3, as it is) or converted (1.0) -> outcome
                                  |-> bridge (HTTP, by the worker's client)
"""
