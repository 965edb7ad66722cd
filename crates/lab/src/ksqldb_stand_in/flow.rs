//! What a query does with records: it filters, projects, counts and sums. No Kafka here.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::expression::{Datum, Expression, Row, arithmetic, with_places};
use super::statement::{Column, Kind, Select};
use super::types::SqlType;

/// A stream or table that is registered.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Stream or table.
    pub kind: Kind,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its topic.
    pub topic: String,
    /// `JSON`, or another that can be registered and not read here.
    pub format: String,
    /// The statement that made it.
    pub statement: String,
    /// Whether a query fills it, or filled it: then a table can be asked for its rows.
    pub materialised: bool,
}

/// A query that can run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it gives.
    pub kind: Kind,
    /// The columns that it gives.
    pub columns: Vec<Column>,
    /// How each is made.
    made: Vec<Expression>,
    /// What it reads.
    pub source: Source,
    /// The query.
    pub select: Select,
}

impl Plan {
    /// Of a query over this source.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(select: &Select, source: &Source) -> Result<Plan, String> {
        let column_type = |name: &str| source.columns.iter().find(|column| column.name == name).map(|c| c.of.clone());
        let items: Vec<(Expression, String)> = if select.items.is_empty() {
            source.columns.iter().map(|c| (Expression::Column(c.name.clone()), c.name.clone())).collect()
        } else {
            let named = select.items.iter().enumerate();
            named
                .map(|(at, (made, name))| (made.clone(), name.clone().unwrap_or_else(|| made.default_name(at))))
                .collect()
        };
        let everything = items.iter().map(|(made, _)| made).chain(&select.filter).chain(&select.group_by);
        for name in everything.flat_map(Expression::columns) {
            if column_type(name).is_none() {
                let place = select.places.get(name).map(|(line, column)| format!("Line: {line}, Col: {column}: "));
                return Err(format!("{}Column '{name}' cannot be resolved.", place.unwrap_or_default()));
            }
        }
        let aggregates = items.iter().any(|(made, _)| made.is_aggregate());
        if aggregates != select.group_by.is_some() {
            return Err("Use of aggregate functions needs GROUP BY, and GROUP BY needs them.".to_owned());
        }
        let group = select.group_by.as_ref().map(|group| group.written(""));
        let is_key = |made: &Expression| match (&group, made) {
            (Some(group), made) => made.written("") == *group,
            (None, Expression::Column(name)) => source.columns.iter().any(|column| column.key && column.name == *name),
            _ => false,
        };
        let columns: Vec<Column> = items
            .iter()
            .map(|(made, name)| Column { name: name.clone(), of: made.type_of(&column_type), key: is_key(made) })
            .collect();
        if group.is_some() && !columns.iter().any(|column| column.key) {
            return Err("The query's projection must include the grouping column.".to_owned());
        }
        let kind = if group.is_some() { Kind::Table } else { source.kind };
        let made = items.into_iter().map(|(made, _)| made).collect();
        Ok(Plan { kind, columns, made, source: source.clone(), select: select.clone() })
    }

    /// Whether it counts or sums.
    pub fn aggregates(&self) -> bool {
        self.select.group_by.is_some()
    }
}

/// A record of a source, read.
pub struct Record<'a> {
    source: &'a Source,
    key: Option<&'a [u8]>,
    value: HashMap<String, Box<RawValue>>,
}

impl<'a> Record<'a> {
    /// Of a record's bytes; `None` if its value is no JSON object, which the server would log and skip.
    pub fn read(source: &'a Source, key: Option<&'a [u8]>, value: &[u8]) -> Option<Record<'a>> {
        let value: HashMap<String, Box<RawValue>> = serde_json::from_slice(value).ok()?;
        let value = value.into_iter().map(|(name, value)| (name.to_uppercase(), value)).collect();
        Some(Record { source, key, value })
    }
}

impl Row for Record<'_> {
    fn value(&self, column: &str) -> Datum {
        let known = self.source.columns.iter().find(|known| known.name == column);
        if let Some(known) = known.filter(|known| known.key) {
            return key_datum(self.key, &known.of);
        }
        let datum = self.value.get(&column.to_uppercase()).map_or(Datum::Null, |raw| Datum::read(raw));
        match (datum, known.map(|known| &known.of)) {
            (Datum::Number(number), Some(SqlType::Decimal(_, places))) => Datum::Number(with_places(&number, *places)),
            (datum, _) => datum,
        }
    }
}

/// A key's bytes as a value of this type.
fn key_datum(key: Option<&[u8]>, of: &SqlType) -> Datum {
    let Some(text) = key.and_then(|key| std::str::from_utf8(key).ok()) else { return Datum::Null };
    match of {
        SqlType::Plain("INTEGER" | "BIGINT" | "DOUBLE") | SqlType::Decimal(..) => Datum::Number(text.to_owned()),
        _ => Datum::Text(text.to_owned()),
    }
}

/// A row that a query gives.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its values by column.
    pub values: Vec<Datum>,
    /// Whether it says that its key is gone.
    pub gone: bool,
}

impl Given {
    /// The key and the value of its record in the sink's topic.
    pub fn record(&self, columns: &[Column]) -> (Option<String>, Option<String>) {
        let pairs = || columns.iter().zip(&self.values);
        let key = pairs().find(|(column, _)| column.key).and_then(|(_, value)| value.key());
        let fields: Vec<String> = pairs()
            .filter(|(column, _)| !column.key)
            .map(|(column, value)| format!("{}:{}", serde_json::Value::from(column.name.as_str()), value.json()))
            .collect();
        (key, (!self.gone).then(|| format!("{{{}}}", fields.join(","))))
    }

    /// As the value of `columns`, in JSON.
    pub fn json(&self) -> String {
        let values: Vec<String> = self.values.iter().map(Datum::json).collect();
        format!("[{}]", values.join(","))
    }
}

/// A query with what it remembers.
pub struct Flow {
    plan: Plan,
    groups: HashMap<String, Vec<Datum>>,
}

impl Flow {
    /// One that remembers nothing yet.
    pub fn new(plan: Plan) -> Flow {
        Flow { plan, groups: HashMap::new() }
    }

    /// What it does.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Remembers a row that it gave before.
    pub fn remember(&mut self, key: &[u8], value: &[u8]) {
        let given = Source { columns: self.plan.columns.clone(), ..self.plan.source.clone() };
        let Some(record) = Record::read(&given, Some(key), value) else { return };
        let values: Vec<Datum> = given.columns.iter().map(|column| record.value(&column.name)).collect();
        self.groups.insert(String::from_utf8_lossy(key).into_owned(), values);
    }

    /// What a record gives.
    pub fn take(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Given> {
        let plan = &self.plan;
        let Some(value) = value else {
            let gone =
                plan.columns.iter().map(|column| if column.key { key_datum(key, &column.of) } else { Datum::Null });
            return (plan.source.kind == Kind::Table).then(|| Given { values: gone.collect(), gone: true });
        };
        let record = Record::read(&plan.source, key, value)?;
        if plan.select.filter.as_ref().is_some_and(|filter| !filter.is_true(&record)) {
            return None;
        }
        let Some(group) = &plan.select.group_by else {
            let values = plan.made.iter().map(|made| made.value(&record)).collect();
            return Some(Given { values, gone: false });
        };
        let group = group.value(&record).key()?;
        let before = self.groups.get(&group);
        let values: Vec<Datum> = plan
            .made
            .iter()
            .enumerate()
            .map(|(at, made)| {
                let before = before.map_or(Datum::Number("0".to_owned()), |values| values[at].clone());
                match made {
                    Expression::Count => arithmetic("+", &before, &Datum::Number("1".to_owned())),
                    Expression::Sum(of) => match of.value(&record) {
                        Datum::Null => before,
                        added => arithmetic("+", &before, &added),
                    },
                    other => other.value(&record),
                }
            })
            .collect();
        self.groups.insert(group, values.clone());
        Some(Given { values, gone: false })
    }
}
