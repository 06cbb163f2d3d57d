"""Stage 7, callback: delivers the outbox's events to Stigmer Service, in order per execution, at least once.

Rules: a callback never fails a workflow; what the receiver did not acknowledge stays in the outbox; memory is bounded
whatever the receiver does; stored bytes are sent as they are.
"""

from fastrunner.callback.pipeline import CallbackPipeline

__all__ = ["CallbackPipeline"]
