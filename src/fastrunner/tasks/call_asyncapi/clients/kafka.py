"""Stage 5, tasks: Kafka. A message is published once all replicas in sync have it; what a subscription was given is
committed when the workflow has it for good.

Theory of operation: a subscription is a member of a consumer group, whose name is the consumer's unless the document
names one. A group that has read nothing of a partition yet begins at its end, and says so to the broker at once: what
comes from then on it misses no more, whatever becomes of the runner. The library does the rest, and tries again by
itself while a cluster is away.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription, Target
from fastrunner.tasks.call_asyncapi.clients.fields import BindingProblem, header_text, named, word
from fastrunner.tasks.call_asyncapi.clients.kafka_connections import Cluster, problem_of, settings
from fastrunner.tasks.call_asyncapi.clients.sockets import too_large

__all__ = ["publish", "subscribe"]

_KEY = "idempotency-key"
_CONTENT_TYPE = "content-type"
_TOPIC_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


async def publish(target: Target, message: Message, key: str) -> None:
    """See `clients`. The key is a header: Kafka itself tells copies apart that the library sends, not ours."""
    topic = _topic(target)
    partition_key = named(target.bindings["message"], "key")
    headers = {_KEY: key, **({_CONTENT_TYPE: message.content_type} if message.content_type else {}), **message.headers}
    producer = AIOKafkaProducer(
        acks="all",
        enable_idempotence=True,
        max_request_size=2 * limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX,
        **await settings(target, named(target.bindings["operation"], "clientId")),
    )
    cluster = Cluster.taking_over(producer.client, target)
    try:
        await cluster.guarded(producer.start())
        await cluster.guarded(
            producer.send_and_wait(
                topic,
                message.body,
                key=partition_key.encode() if partition_key else None,
                headers=[(name, value.encode("utf-8", "surrogatepass")) for name, value in headers.items()],
            )
        )
    finally:
        await cluster.shut(producer.stop())


async def subscribe(target: Target, consumer: str) -> Subscription:
    """See `clients`."""
    operation = target.bindings["operation"]
    topic, group = _topic(target), named(operation, "groupId") or consumer
    reader = AIOKafkaConsumer(
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        fetch_max_bytes=limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX,
        max_partition_fetch_bytes=limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX,
        # What a killed runner had is another member's after that.
        session_timeout_ms=int(limits.ASYNCAPI_ACK_WAIT_S * 1000),
        heartbeat_interval_ms=int(limits.ASYNCAPI_ACK_WAIT_S * 1000 / 3),
        # Nobody who is slower than that is a member any more; who is idle for less is closed before.
        max_poll_interval_ms=int(limits.ASYNCAPI_CONSUMER_KEPT_S * 1000),
        **await settings(target, named(operation, "clientId")),
    )
    session = _Session(reader, Cluster.taking_over(reader._client, target))
    try:
        await session.start(topic)
    except BaseException:
        await session.close()
        raise
    return session


class _Session(ConsumerRebalanceListener):  # type: ignore[misc]
    """See `Subscription`."""

    def __init__(self, consumer: AIOKafkaConsumer, cluster: Cluster) -> None:
        self._consumer = consumer
        self._cluster = cluster
        self._given: deque[ConsumerRecord[Any, Any]] = deque()
        self._has_begun = asyncio.Event()

    async def start(self, topic: str) -> None:
        """Joins the group, and has a place in what is assigned. Raises CallProblem."""
        self._consumer.subscribe([topic], listener=self)
        await self._cluster.guarded(self._consumer.start())
        await self._cluster.guarded(self._has_begun.wait())

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """See ConsumerRebalanceListener."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """See ConsumerRebalanceListener: the group's place is settled where it has none."""
        try:
            fresh = [partition for partition in assigned if await self._consumer.committed(partition) is None]
            ends = await self._consumer.end_offsets(fresh) if fresh else {}
            for partition, offset in ends.items():
                self._consumer.seek(partition, offset)
            if ends:
                await self._consumer.commit(ends)
        except (CommitFailedError, IllegalStateError):
            # The group is on the move again; this is asked once more.
            return
        except KafkaError as error:
            self._cluster.end(problem_of(error))
            return
        self._has_begun.set()

    async def next(self) -> Message:
        """See `Subscription`."""
        record = await self._cluster.guarded(self._consumer.getone())
        body = record.value or b""
        if len(body) > limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
            raise too_large(len(body), limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX)
        self._given.append(record)
        headers = {name: header_text(value or b"") for name, value in record.headers}
        content_type = next((value for name, value in headers.items() if name.lower() == _CONTENT_TYPE), "")
        return Message(body, headers, content_type)

    async def taken(self, count: int) -> None:
        """See `Subscription`. What the group has given to another member meanwhile is that one's."""
        assigned = self._consumer.assignment()
        offsets: dict[TopicPartition, int] = {}
        for _ in range(count):
            record = self._given.popleft()
            partition = TopicPartition(record.topic, record.partition)
            if partition in assigned:
                offsets[partition] = record.offset + 1
        if offsets:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._cluster.target.around.config.http_timeout_s):
                    await self._cluster.guarded(_unless_moved(self._consumer.commit(offsets)))

    async def close(self) -> None:
        """See `Subscription`."""
        await self._cluster.shut(self._consumer.stop())


async def _unless_moved(commit: Any) -> None:
    with suppress(CommitFailedError, IllegalStateError):
        await commit


def _topic(target: Target) -> str:
    topic = word(target.bindings["channel"], "topic") or target.address
    if not topic or len(topic) > 249 or topic in (".", "..") or not _TOPIC_CHARACTERS.issuperset(topic):
        raise BindingProblem(
            f"{topic!r:.100}, the channel's address or its binding topic, is no topic of Kafka: letters, digits, . _ -"
        )
    return topic
