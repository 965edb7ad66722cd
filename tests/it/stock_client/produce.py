"""Publishes events with Confluent's own serializers, as any producer would.

Reads JSON lines from stdin: first {"bootstrap", "registry"}, then one event each: {"topic", "format" (avro, json or
plain), "strategy", "schema", "record", "key", "headers", "value"}.
"""

import json
import sys
from datetime import datetime
from decimal import Decimal

from confluent_kafka import Producer
from confluent_kafka.schema_registry import (
    SchemaRegistryClient,
    record_subject_name_strategy,
    topic_record_subject_name_strategy,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

STRATEGIES = {
    "topic": topic_subject_name_strategy,
    "record": record_subject_name_strategy,
    "topic_record": topic_record_subject_name_strategy,
}
DECIMALS = {"qty", "price", "taxRate", "taxPercent"}


def typed(value, name=""):
    """The Python types that Avro's logical types want."""
    if isinstance(value, dict):
        return {key: typed(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [typed(entry) for entry in value]
    if name in DECIMALS and value is not None:
        return Decimal(value)
    if name == "occurredAt":
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    return value


def main():
    lines = [json.loads(line) for line in sys.stdin]
    registry = SchemaRegistryClient({"url": lines[0]["registry"]})
    producer = Producer({"bootstrap.servers": lines[0]["bootstrap"], "linger.ms": 2})
    serializers = {}
    for event in lines[1:]:
        key = (event["format"], event["strategy"], event["schema"])
        if event["format"] != "plain" and key not in serializers:
            settings = {"subject.name.strategy": STRATEGIES[event["strategy"]]}
            kind = AvroSerializer if event["format"] == "avro" else JSONSerializer
            serializers[key] = (
                kind(registry, event["schema"], conf=settings)
                if kind is AvroSerializer
                else kind(event["schema"], registry, conf=settings)
            )
        value = event["value"]
        if event["format"] == "plain":
            value = json.dumps(value).encode()
        else:
            if event["format"] == "avro":
                value = typed(value)
                if event["strategy"] == "topic":
                    value = (event["record"], value)  # which branch of the union
            value = serializers[key](value, SerializationContext(event["topic"], MessageField.VALUE))
        headers = [(name, text.encode()) for name, text in event["headers"].items()]
        producer.produce(event["topic"], key=event["key"].encode(), value=value, headers=headers)
    if producer.flush(30) != 0:
        sys.exit("the broker did not take everything")


main()
