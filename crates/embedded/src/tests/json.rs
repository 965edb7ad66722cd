//! `json_get` and its kin over columns of text.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use streamview_manager::engines::Select;

use super::support::*;
use crate::plan::{Bounds, Limits, Prepared, Purpose};
use crate::schema;

/// What an expression over the column `j` gives for each of these texts.
async fn given(expression: &str, texts: &[Option<&str>]) -> Vec<String> {
    let of = source("docs", &[("j", "string"), ("n", "int"), ("name", "string")], None);
    let select = Select { sql: format!("select {expression} as x from docs"), sources: vec![of.clone()] };
    let prepared = Prepared::new(&select, Purpose::Persistent, &Limits::default()).unwrap();
    let mut query = prepared.start(Bounds::default()).unwrap();
    let schema = schema::of_source(&of);
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(texts.to_vec()))];
    for (number, field) in schema.fields().iter().enumerate().skip(1) {
        columns.push(match number {
            3 => Arc::new(datafusion::arrow::array::Int32Array::from(vec![0; texts.len()])),
            4 => Arc::new(datafusion::arrow::array::Int64Array::from_iter_values(0..texts.len() as i64)),
            1 => Arc::new(datafusion::arrow::array::Int32Array::from(vec![1; texts.len()])),
            2 => Arc::new(StringArray::from(vec!["b"; texts.len()])),
            _ => new_null_array(field.data_type(), texts.len()),
        });
    }
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    lines(&query.push(0, rows, NOW).await.unwrap().out)
}

#[tokio::test]
async fn values_of_json_are_found_by_their_keys_and_what_is_not_there_is_null() {
    let text = r#"{"a": {"b": [10, {"c": "x\u00fc"}, 2.5, true, null, 9223372036854775808]}, "b": "7", "a.b": 1}"#;
    for (expression, expected) in [
        ("json_get(j, 'a', 'b', 1)", r#"{"c": "x\u00fc"}"#),
        ("json_get(j, 'b')", r#""7""#),
        ("json_get(j, 'a', 'b', 4)", "null"),
        ("json_get_str(j, 'a', 'b', 1, 'c')", "xü"),
        ("json_get_str(j, name)", "7"),
        ("json_get_str(j, 'a', 'b', 0)", "null"),
        ("json_get_int(j, 'a', 'b', 0)", "10"),
        ("json_get_int(j, 'a', 'b', 2)", "null"),
        ("json_get_int(j, 'a', 'b', 5)", "null"),
        ("json_get_int(j, 'a.b')", "1"),
        ("json_get_int(j, 'b')", "null"),
        ("json_get_float(j, 'a', 'b', 2)", "2.5"),
        ("json_get_float(j, 'a', 'b', 0)", "10.0"),
        ("json_get_bool(j, 'a', 'b', 3)", "true"),
        ("json_get_bool(j, 'b')", "null"),
        ("json_length(j)", "3"),
        ("json_length(j, 'a', 'b')", "6"),
        ("json_length(j, 'b')", "null"),
        ("json_contains(j, 'a', 'b', n)", "true"),
        ("json_contains(j, 'a', 'b', 6)", "false"),
        ("json_contains(j, 'a', 'b', -1)", "false"),
        ("json_contains(j, 'a', 'b', 4)", "true"),
        ("json_get(j, 'c')", "null"),
        ("json_get(j, 0)", "null"),
    ] {
        assert_eq!(given(expression, &[Some(text)]).await, [expected], "{expression}");
    }
    // Neither null nor what is no JSON fails.
    let odd = [None, Some("{"), Some("{\"a\":1"), Some("{\"a\":1}x"), Some("7"), Some("{\"a\":1,\"a\":2}")];
    assert_eq!(given("json_get_int(j, 'a')", &odd).await, ["null", "null", "null", "null", "null", "2"]);
    assert_eq!(given("json_contains(j, 'a')", &odd).await, ["null", "false", "false", "false", "false", "true"]);
    assert_eq!(given("json_length(j)", &odd).await, ["null", "null", "null", "null", "null", "2"]);
}

#[test]
fn json_of_no_text_or_without_keys_is_refused_with_its_place() {
    for (expression, part) in [
        ("json_get(quantity, 'a')", "text that is JSON"),
        ("json_get(customer)", "wants keys"),
        ("json_get(customer, amount)", "names or whole numbers"),
    ] {
        let refusal =
            prepared_for(&format!("select {expression} from orders"), Purpose::AdHoc).map(|_| ()).unwrap_err();
        assert!(refusal.message.contains(part), "{refusal:?}");
    }
}
