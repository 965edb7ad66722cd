//! Expressions: comparisons, arithmetic and the two aggregates, over the values of one row.

use std::cmp::Ordering;

use serde_json::value::RawValue;

use super::types::SqlType;

/// An expression.
#[derive(Debug, Clone)]
pub enum Expression {
    /// A column by its name.
    Column(String),
    /// A value that is written out.
    Literal(Datum),
    /// `NOT`, or a minus.
    Unary(&'static str, Box<Expression>),
    /// Two sides.
    Binary(&'static str, Box<Expression>, Box<Expression>),
    /// `IS NULL`, or `IS NOT NULL` if false.
    IsNull(Box<Expression>, bool),
    /// `COUNT(*)`.
    Count,
    /// `SUM(…)`.
    Sum(Box<Expression>),
}

/// A value. Numbers stay as they are written, so that none is rounded.
#[derive(Debug, Clone)]
pub enum Datum {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(String),
    /// Text.
    Text(String),
    /// A list or an object, as it is written.
    Raw(Box<RawValue>),
}

impl Datum {
    /// Of a piece of JSON.
    pub fn read(raw: &RawValue) -> Datum {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'n') => Datum::Null,
            Some(b't') => Datum::Bool(true),
            Some(b'f') => Datum::Bool(false),
            Some(b'"') => serde_json::from_str(text).map_or(Datum::Null, Datum::Text),
            Some(b'[' | b'{') => Datum::Raw(raw.to_owned()),
            _ => Datum::Number(text.to_owned()),
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        match self {
            Datum::Null => "null".to_owned(),
            Datum::Bool(yes) => yes.to_string(),
            Datum::Number(number) => number.clone(),
            Datum::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            Datum::Raw(raw) => raw.get().to_owned(),
        }
    }

    /// As a record's key: text without quotes.
    pub fn key(&self) -> Option<String> {
        match self {
            Datum::Null => None,
            Datum::Text(text) => Some(text.clone()),
            other => Some(other.json()),
        }
    }

    fn compared(&self, other: &Datum) -> Option<Ordering> {
        match (self, other) {
            (Datum::Number(left), Datum::Number(right)) => match (left.parse::<i128>(), right.parse::<i128>()) {
                (Ok(left), Ok(right)) => Some(left.cmp(&right)),
                _ => left.parse::<f64>().ok()?.partial_cmp(&right.parse::<f64>().ok()?),
            },
            (Datum::Text(left), Datum::Text(right)) => Some(left.cmp(right)),
            (Datum::Bool(left), Datum::Bool(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }
}

/// The values of a row by column.
pub trait Row {
    /// The value of a column.
    fn value(&self, column: &str) -> Datum;
}

impl Expression {
    /// Its value; of an aggregate nothing.
    pub fn value(&self, row: &dyn Row) -> Datum {
        match self {
            Expression::Column(name) => row.value(name),
            Expression::Literal(datum) => datum.clone(),
            Expression::Unary("NOT", of) => match of.value(row) {
                Datum::Bool(yes) => Datum::Bool(!yes),
                _ => Datum::Null,
            },
            Expression::Unary(_, of) => arithmetic("-", &Datum::Number("0".to_owned()), &of.value(row)),
            Expression::IsNull(of, wanted) => Datum::Bool(matches!(of.value(row), Datum::Null) == *wanted),
            Expression::Binary(word @ ("AND" | "OR"), left, right) => {
                let (left, right) = (left.is_true(row), right.is_true(row));
                Datum::Bool(if *word == "AND" { left && right } else { left || right })
            }
            Expression::Binary(mark @ ("+" | "-" | "*" | "/"), left, right) => {
                arithmetic(mark, &left.value(row), &right.value(row))
            }
            Expression::Binary(mark, left, right) => match left.value(row).compared(&right.value(row)) {
                None => Datum::Null,
                Some(order) => Datum::Bool(match *mark {
                    "=" => order.is_eq(),
                    "<>" | "!=" => order.is_ne(),
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                }),
            },
            Expression::Count | Expression::Sum(_) => Datum::Null,
        }
    }

    /// Whether it is true of a row; nothing is not true.
    pub fn is_true(&self, row: &dyn Row) -> bool {
        matches!(self.value(row), Datum::Bool(true))
    }

    /// Whether it counts or adds up rows.
    pub fn is_aggregate(&self) -> bool {
        matches!(self, Expression::Count | Expression::Sum(_))
    }

    /// The columns that it names.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Expression::Column(name) => vec![name],
            Expression::Literal(_) | Expression::Count => Vec::new(),
            Expression::Unary(_, of) | Expression::IsNull(of, _) | Expression::Sum(of) => of.columns(),
            Expression::Binary(_, left, right) => [left.columns(), right.columns()].concat(),
        }
    }

    /// Its type, where columns have these.
    pub fn type_of(&self, column: &dyn Fn(&str) -> Option<SqlType>) -> SqlType {
        match self {
            Expression::Column(name) => column(name).unwrap_or(SqlType::Plain("STRING")),
            Expression::Literal(Datum::Number(number)) if number.contains('.') => SqlType::Plain("DOUBLE"),
            Expression::Literal(Datum::Number(_)) => SqlType::Plain("INTEGER"),
            Expression::Literal(Datum::Bool(_)) | Expression::IsNull(..) | Expression::Unary("NOT", _) => {
                SqlType::Plain("BOOLEAN")
            }
            Expression::Literal(_) => SqlType::Plain("STRING"),
            Expression::Unary(_, of) => of.type_of(column),
            Expression::Binary("+" | "-" | "*" | "/", left, right) => {
                match (left.type_of(column), right.type_of(column)) {
                    (left, right) if left == right => left,
                    (SqlType::Plain("INTEGER"), other) | (other, SqlType::Plain("INTEGER")) => other,
                    _ => SqlType::Plain("DOUBLE"),
                }
            }
            Expression::Binary(..) => SqlType::Plain("BOOLEAN"),
            Expression::Count => SqlType::Plain("BIGINT"),
            Expression::Sum(of) => of.type_of(column),
        }
    }

    /// As the server writes it back: columns qualified, operations in brackets.
    pub fn written(&self, alias: &str) -> String {
        match self {
            Expression::Column(name) => format!("{alias}.{name}"),
            Expression::Literal(Datum::Text(text)) => format!("'{}'", text.replace('\'', "''")),
            Expression::Literal(datum) => datum.json(),
            Expression::Unary(word, of) => format!("({word} {})", of.written(alias)),
            Expression::Binary(mark, left, right) => {
                format!("({} {mark} {})", left.written(alias), right.written(alias))
            }
            Expression::IsNull(of, true) => format!("({} IS NULL)", of.written(alias)),
            Expression::IsNull(of, false) => format!("({} IS NOT NULL)", of.written(alias)),
            Expression::Count => "COUNT(*)".to_owned(),
            Expression::Sum(of) => format!("SUM({})", of.written(alias)),
        }
    }

    /// What its column is called without `AS`.
    pub fn default_name(&self, number: usize) -> String {
        match self {
            Expression::Column(name) => name.clone(),
            _ => format!("KSQL_COL_{number}"),
        }
    }
}

/// Adds, takes away and so on. Decimals keep the longer scale where they are added; a division by zero is nothing.
pub fn arithmetic(mark: &str, left: &Datum, right: &Datum) -> Datum {
    let (Datum::Number(left), Datum::Number(right)) = (left, right) else { return Datum::Null };
    if let (Some((left_digits, left_scale)), Some((right_digits, right_scale))) = (scaled(left), scaled(right)) {
        let scale = left_scale.max(right_scale);
        let left = left_digits * 10_i128.pow(scale - left_scale);
        let right = right_digits * 10_i128.pow(scale - right_scale);
        match mark {
            "+" => return Datum::Number(unscaled(left + right, scale)),
            "-" => return Datum::Number(unscaled(left - right, scale)),
            "*" if scale == 0 => return Datum::Number((left * right).to_string()),
            "/" if scale == 0 => return left.checked_div(right).map_or(Datum::Null, |n| Datum::Number(n.to_string())),
            _ => {}
        }
    }
    let (Ok(left), Ok(right)) = (left.parse::<f64>(), right.parse::<f64>()) else { return Datum::Null };
    let result = match mark {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        _ => left / right,
    };
    if result.is_finite() { Datum::Number(format!("{result}")) } else { Datum::Null }
}

/// Digits and scale of a number without an exponent.
fn scaled(number: &str) -> Option<(i128, u32)> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    Some((format!("{whole}{part}").parse().ok()?, u32::try_from(part.len()).ok().filter(|scale| *scale <= 12)?))
}

/// A decimal with so many places, as the server reads and writes it.
pub fn with_places(number: &str, places: u32) -> String {
    match scaled(number) {
        Some((digits, scale)) if scale < places => unscaled(digits * 10_i128.pow(places - scale), places),
        _ => number.to_owned(),
    }
}

fn unscaled(digits: i128, scale: u32) -> String {
    let scale = scale as usize;
    if scale == 0 {
        return digits.to_string();
    }
    let sign = if digits < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_decimals_are_exact() {
        let number = |text: &str| Datum::Number(text.to_owned());
        for (mark, left, right, result) in [
            ("+", "0.10", "0.20", "0.30"),
            ("+", "9007199254740993", "1", "9007199254740994"),
            ("-", "0.05", "1", "-0.95"),
            ("/", "100", "0", "null"),
            ("/", "100", "3", "33"),
        ] {
            assert_eq!(arithmetic(mark, &number(left), &number(right)).json(), result);
        }
    }
}
