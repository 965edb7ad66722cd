//! The types that all engines have, and how they are written: `decimal(10, 2)`, `array<string>`, `row<a int, b string>`.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How deep types may nest.
const MAX_DEPTH: usize = 16;

/// A column's type. In JSON it is text, as its `Display` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataType {
    /// True or false.
    Boolean,
    /// 32 bits.
    Int,
    /// 64 bits: text in JSON where a double would round it.
    BigInt,
    /// A double.
    Double,
    /// Always text in JSON.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits behind the point, at most as many.
        scale: u8,
    },
    /// Text.
    String,
    /// Bytes: base64 in JSON.
    Bytes,
    /// A day.
    Date,
    /// A time of day.
    Time,
    /// A point in time with this many digits of a second, 0 to 9.
    Timestamp(u8),
    /// A list.
    Array(Box<DataType>),
    /// Text to something.
    Map(Box<DataType>),
    /// Fields with names.
    Row(Vec<(String, DataType)>),
}

impl Display for DataType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DataType::Boolean => f.write_str("boolean"),
            DataType::Int => f.write_str("int"),
            DataType::BigInt => f.write_str("bigint"),
            DataType::Double => f.write_str("double"),
            DataType::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            DataType::String => f.write_str("string"),
            DataType::Bytes => f.write_str("bytes"),
            DataType::Date => f.write_str("date"),
            DataType::Time => f.write_str("time"),
            DataType::Timestamp(digits) => write!(f, "timestamp({digits})"),
            DataType::Array(of) => write!(f, "array<{of}>"),
            DataType::Map(of) => write!(f, "map<string, {of}>"),
            DataType::Row(fields) => {
                f.write_str("row<")?;
                for (number, (name, of)) in fields.iter().enumerate() {
                    write!(f, "{}`{}` {of}", if number == 0 { "" } else { ", " }, name.replace('`', "``"))?;
                }
                f.write_str(">")
            }
        }
    }
}

/// Why a text is no type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a type at character {at}: expected {expected}")]
pub struct NotAType {
    text: String,
    at: usize,
    expected: &'static str,
}

impl FromStr for DataType {
    type Err = NotAType;

    fn from_str(text: &str) -> Result<DataType, NotAType> {
        let mut reader = Reader { letters: text.chars().collect(), at: 0 };
        let read = reader.data_type(0).and_then(|read| {
            reader.skip_spaces();
            if reader.at == reader.letters.len() { Ok(read) } else { Err("the end") }
        });
        read.map_err(|expected| NotAType { text: text.to_owned(), at: reader.at + 1, expected })
    }
}

struct Reader {
    letters: Vec<char>,
    at: usize,
}

type Read<T> = Result<T, &'static str>;

impl Reader {
    fn data_type(&mut self, depth: usize) -> Read<DataType> {
        if depth > MAX_DEPTH {
            return Err("types that nest no deeper than 16");
        }
        let word = self.word()?.to_ascii_lowercase();
        Ok(match word.as_str() {
            "boolean" => DataType::Boolean,
            "int" | "integer" => DataType::Int,
            "bigint" => DataType::BigInt,
            "double" => DataType::Double,
            "string" | "varchar" => DataType::String,
            "bytes" => DataType::Bytes,
            "date" => DataType::Date,
            "time" => DataType::Time,
            "timestamp" => DataType::Timestamp(self.digits()?),
            "decimal" => self.decimal()?,
            "array" => {
                self.mark('<')?;
                let of = self.data_type(depth + 1)?;
                self.mark('>')?;
                DataType::Array(Box::new(of))
            }
            "map" => {
                self.mark('<')?;
                if self.data_type(depth + 1)? != DataType::String {
                    return Err("string as the key of a map");
                }
                self.mark(',')?;
                let of = self.data_type(depth + 1)?;
                self.mark('>')?;
                DataType::Map(Box::new(of))
            }
            "row" | "struct" => DataType::Row(self.fields(depth)?),
            _ => {
                return Err("boolean, int, bigint, double, decimal(p, s), string, bytes, date, time, timestamp(n), \
                            array<…>, map<string, …> or row<name type, …>");
            }
        })
    }

    /// `(p, s)`.
    fn decimal(&mut self) -> Read<DataType> {
        self.mark('(')?;
        let precision = self.number(38)?;
        self.mark(',')?;
        let scale = self.number(precision)?;
        self.mark(')')?;
        if precision == 0 { Err("a precision from 1 to 38") } else { Ok(DataType::Decimal { precision, scale }) }
    }

    /// `(n)`, or nothing for milliseconds.
    fn digits(&mut self) -> Read<u8> {
        if !self.is_next('(') {
            return Ok(3);
        }
        self.mark('(')?;
        let digits = self.number(9)?;
        self.mark(')')?;
        Ok(digits)
    }

    fn fields(&mut self, depth: usize) -> Read<Vec<(String, DataType)>> {
        self.mark('<')?;
        let mut fields = Vec::new();
        // ksqlDB writes the type of an empty structure as `STRUCT< >`.
        if self.is_next('>') {
            self.mark('>')?;
            return Ok(fields);
        }
        loop {
            let name = self.word()?;
            fields.push((name, self.data_type(depth + 1)?));
            if self.is_next('>') {
                self.mark('>')?;
                return Ok(fields);
            }
            self.mark(',')?;
        }
    }

    fn skip_spaces(&mut self) {
        while self.letters.get(self.at).is_some_and(|letter| letter.is_whitespace()) {
            self.at += 1;
        }
    }

    fn is_next(&mut self, mark: char) -> bool {
        self.skip_spaces();
        self.letters.get(self.at) == Some(&mark)
    }

    fn mark(&mut self, mark: char) -> Read<()> {
        if !self.is_next(mark) {
            return Err(match mark {
                '<' => "<",
                '>' => ">",
                '(' => "(",
                ')' => ")",
                _ => ",",
            });
        }
        self.at += 1;
        Ok(())
    }

    /// A name, with or without backticks.
    fn word(&mut self) -> Read<String> {
        if self.is_next('`') {
            return self.quoted();
        }
        let start = self.at;
        while self.letters.get(self.at).is_some_and(|letter| letter.is_alphanumeric() || *letter == '_') {
            self.at += 1;
        }
        if start == self.at { Err("a word") } else { Ok(self.letters[start..self.at].iter().collect()) }
    }

    fn quoted(&mut self) -> Read<String> {
        let mut name = String::new();
        self.at += 1;
        loop {
            let letter = *self.letters.get(self.at).ok_or("a closing backtick")?;
            self.at += 1;
            if letter == '`' {
                if self.letters.get(self.at) != Some(&'`') {
                    return if name.is_empty() { Err("a name") } else { Ok(name) };
                }
                self.at += 1;
            }
            name.push(letter);
        }
    }

    fn number(&mut self, most: u8) -> Read<u8> {
        self.skip_spaces();
        let digits: String = self.letters[self.at..].iter().take_while(|letter| letter.is_ascii_digit()).collect();
        let number = digits.parse().ok().filter(|number| *number <= most).ok_or("a number in range")?;
        self.at += digits.len();
        Ok(number)
    }
}

impl Serialize for DataType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DataType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn types_are_written_as_they_are_read() {
        for text in [
            "boolean",
            "decimal(10, 2)",
            "timestamp(3)",
            "array<array<bigint>>",
            "map<string, row<`a` int, `b, ``c` array<string>>>",
        ] {
            assert_eq!(text.parse::<DataType>().unwrap().to_string(), text);
        }
        assert_eq!("TIMESTAMP".parse(), Ok(DataType::Timestamp(3)));
        assert_eq!("struct < A INTEGER >".parse(), Ok(DataType::Row(vec![("A".to_owned(), DataType::Int)])));
    }

    #[test]
    fn what_is_no_type_says_where() {
        for text in ["", "decimal", "decimal(39, 2)", "decimal(5, 6)", "decimal(0, 0)", "timestamp(10)", "array<int"] {
            text.parse::<DataType>().unwrap_err();
        }
        let error = "row<a int; DROP>".parse::<DataType>().unwrap_err().to_string();
        assert_eq!(error, "`row<a int; DROP>` is not a type at character 10: expected ,");
        assert!(format!("{}int{}", "array<".repeat(17), ">".repeat(17)).parse::<DataType>().is_err());
        assert!(format!("{}int{}", "array<".repeat(16), ">".repeat(16)).parse::<DataType>().is_ok());
    }
}
