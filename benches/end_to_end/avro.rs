//! The workload as Avro, framed with the ids that a registry of our own has given its schemas.

use anyhow::{Context, Result};
use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use streamview::config::{Config, SecretUrl};
use streamview::schemas::client::{RegistryClient, install_tls};
use streamview::schemas::subjects::{self, Format, Subject};
use streamview::views::orders::contract::contracts;
use streamview_lab::servers::{RegistryOptions, SchemaRegistry};

use crate::publish::Encode;
use crate::workload::{Event, QTY, Shape, price_cents, status_after};

/// Encodes events of that shape; the registry has to live as long as somebody reads them.
pub async fn encoder(shape: Shape) -> Result<(Encode, SchemaRegistry)> {
    install_tls();
    let registry = tokio::task::block_in_place(|| SchemaRegistry::start(&RegistryOptions::default()))?;
    let mut settings = Config::defaults().schema_registry;
    settings.url = SecretUrl::new(registry.url());
    let client = RegistryClient::new(&settings).context("the registry's client")?;
    let mut schemas = Vec::new();
    for event_type in ["OrderCreated", "OrderStatusChanged"] {
        let contract = contracts(1).find(|contract| contract.event_type == event_type);
        let text = contract.context("the event has a schema")?.avro;
        let (name, schema) = (format!("bench-{event_type}"), text.to_owned());
        let id = subjects::register(&client, &Subject { name, format: Format::Avro, schema }).await?;
        schemas.push(([&[0][..], &id.to_be_bytes()].concat(), Schema::parse_str(text)?));
    }
    let encode: Encode = Box::new(move |event| {
        let (frame, schema) = &schemas[usize::from(event.sequence > 1)];
        let body = GenericDatumWriter::builder(schema).build()?.write_value_to_vec(value(event, shape))?;
        Ok([frame.as_slice(), &body].concat())
    });
    Ok((encode, registry))
}

fn value(event: Event, shape: Shape) -> Value {
    let mut fields = vec![
        ("eventId", Value::String(event.event_id(shape.ids))),
        ("occurredAt", Value::TimestampMicros(event.time().as_microsecond())),
        ("orderId", Value::String(event.order_id())),
    ];
    if event.sequence > 1 {
        fields.push(("status", Value::String(status_after(event.sequence).to_owned())));
    } else {
        fields.push(("customerId", Value::String(event.customer_id())));
        fields.push(("currency", Value::String("EUR".to_owned())));
        fields.push(("items", Value::Array((1..=shape.lines).map(|number| line(event, number)).collect())));
    }
    record(fields)
}

fn line(event: Event, number: u64) -> Value {
    record(vec![
        ("itemId", Value::String(format!("item-{number}"))),
        ("sku", Value::String(event.sku(number))),
        ("qty", decimal(QTY * 1_000)),
        ("price", decimal(price_cents(event.order) * 100)),
        ("taxRate", Value::Union(0, Box::new(Value::Null))),
    ])
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn decimal(unscaled: u64) -> Value {
    Value::Decimal(apache_avro::Decimal::from(unscaled.to_be_bytes()))
}
