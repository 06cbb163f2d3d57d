"""Support: librdkafka's mock cluster as a program: a broker of Kafka that remembers nothing. Prints its port."""

import sys

from confluent_kafka import Producer


def main() -> None:
    producer = Producer({"bootstrap.servers": "mock:1", "test.mock.num.brokers": 1, "log_level": 3})
    [broker] = producer.list_topics(timeout=30.0).brokers.values()
    print(broker.port, flush=True)
    # Until whoever started it lets go.
    sys.stdin.read()


if __name__ == "__main__":
    main()
