//! The rows of a build by key, for who compares builds: fingerprints first, values where those differ. Decides nothing.
//!
//! Which tables there are is what the view says ([`KeyedRows`]), beside the ledger. The statements are put together from
//! those names, which are constants of the code; which build is meant is said by the search path, as everywhere.
//! Everything is read inside a transaction of the caller, who says by its isolation what is one moment.

use std::collections::BTreeMap;

use tokio_postgres::{Row, Statement};

use crate::domain::build::BuildId;
use crate::domain::comparison::RowText;
use crate::domain::history::History;
use crate::engine::view::{DetailTable, KeyTable, KeyedRows};
use crate::store::fence::Writing;
use crate::store::{Connection, DbError, names};

/// Longer values are cut, and their checksum stands for the rest: no two different ones look alike.
const SHOWN: usize = 300;

/// Reads a build's rows on one connection.
pub struct BuildRows {
    search_path: String,
    page: Statement,
    some: Statement,
    tables: Vec<TableRows>,
}

/// The rows of one of its tables; `None`: this build was made without it.
type TableRows = Option<(Statement, Statement)>;

/// What a key is, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print {
    /// The key.
    pub key: String,
    /// How far it is.
    pub sequence: i64,
    /// Its rows in each table, in the order of [`tables`].
    pub tables: Vec<TablePrint>,
}

/// The rows of a key in one table: how many, and a hash of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TablePrint {
    /// How many.
    pub rows: i64,
    /// A hash of the text of all of them.
    pub hash: i64,
}

/// A row by its key and its number within the key.
pub type Place = (String, i64);

/// A table whose rows belong to keys, in SQL.
pub struct Table {
    name: &'static str,
    /// What its rows are called: empty for the one row that is the key's own.
    pub shown_as: &'static str,
    key: &'static str,
    number: &'static str,
    /// A hash of `this` row.
    print: String,
    /// Columns that are not values: those which say what row it is, or belong to the build only.
    not_values: String,
}

/// The tables that are compared: the keys' own, those of the view's further rows, the ledger as far as `history` has it.
pub fn tables(rows: &KeyedRows, history: History) -> Vec<Table> {
    // As text: what readers are shown is compared, with the scale of numbers.
    let text_print = || "hashtextextended(this::text, 0)".to_owned();
    let KeyTable { name, key, .. } = rows.of_key;
    let own = Table { name, shown_as: "", key, number: "0", print: text_print(), not_values: key.to_owned() };
    let details = rows.details.iter().map(|DetailTable { name, key, number, shown_as }| Table {
        name,
        shown_as,
        key,
        number,
        print: text_print(),
        not_values: format!("{key},{number}"),
    });
    let (payload, without) = match history {
        History::Payload => (", this.payload", ""),
        History::Compact | History::Off => ("", ",payload"),
    };
    let ledger = Table {
        name: "ledger",
        shown_as: "events",
        key: "key",
        number: "sequence",
        print: format!(
            "hash_record_extended(row(this.sequence, this.event_id, this.event_type, this.occurred_at, this.effect{payload}), 0)"
        ),
        not_values: format!("key,sequence,partition,offset,commit_partition,commit{without}"),
    };
    let ledger = (history != History::Off).then_some(ledger);
    [own].into_iter().chain(details).chain(ledger).collect()
}

impl Table {
    /// How many rows each key `k` has, and their hash.
    fn prints(&self, place: usize, is_there: bool) -> String {
        let Table { name, key, print, .. } = self;
        let rows = match is_there {
            true => format!(
                "select count(*) as rows, coalesce(bit_xor({print}), 0) as hash from {name} this where this.{key} = k.key"
            ),
            false => "select 0::bigint as rows, 0::bigint as hash".to_owned(),
        };
        format!("cross join lateral ({rows}) t{place}")
    }

    fn number_of_row(&self) -> String {
        if self.number == "0" { "0".to_owned() } else { format!("this.{}", self.number) }
    }

    /// The hash of each row of these keys.
    fn row_prints(&self) -> String {
        let Table { name, key, print, .. } = self;
        let number = self.number_of_row();
        format!("select this.{key}, {number}::bigint, {print} from {name} this where this.{key} = any ($1::text[])")
    }

    /// Names and texts of the columns of these rows.
    fn row_texts(&self) -> String {
        let Table { name, key, not_values, .. } = self;
        let number = self.number_of_row();
        format!(
            "select this.{key}, {number}::bigint, c.names, c.texts \
             from unnest($1::text[], $2::bigint[]) asked (key, number) \
             join {name} this on this.{key} = asked.key and {number} = asked.number \
             cross join lateral ( \
                 select array_agg(v.key order by v.key) as names, \
                        array_agg(case when length(v.value) > {SHOWN} \
                                       then format('%s… (%s characters, md5 %s)', left(v.value, {SHOWN}), \
                                                   length(v.value), md5(v.value)) \
                                       else v.value end order by v.key) as texts \
                 from jsonb_each_text(to_jsonb(this) - '{{{not_values}}}'::text[]) v) c"
        )
    }
}

/// The fingerprints of the keys that `chosen` says, in the order of their bytes.
fn key_prints(of_key: &KeyTable, tables: &[Table], is_there: &[bool], chosen: &str) -> String {
    let KeyTable { name, key, sequence } = of_key;
    let further = || (1..tables.len()).map(|place| (place, &tables[place], is_there[place]));
    let counts: String = further().map(|(place, ..)| format!(", t{place}.rows")).collect();
    let hashes: String = further().map(|(place, ..)| format!(", t{place}.hash")).collect();
    let joined: Vec<String> = further().map(|(place, table, is_there)| table.prints(place, is_there)).collect();
    format!(
        "select k.key, k.sequence, array[1::bigint{counts}], array[k.hash{hashes}] \
         from (select this.{key} as key, this.{sequence}::bigint as sequence, {print} as hash \
               from {name} this where {chosen}) k {joined} \
         order by k.key collate \"C\"",
        print = tables[0].print,
        joined = joined.join(" ")
    )
}

impl BuildRows {
    /// Prepares, inside a transaction.
    pub async fn prepare(
        client: &Connection,
        build: BuildId,
        of_key: &KeyTable,
        tables: &[Table],
    ) -> Result<Self, DbError> {
        let (search_path, schema) = (names::search_path(build), names::schema(build));
        Self::prepare_in(client, (&search_path, &schema), of_key, tables).await
    }

    /// The same of tables elsewhere: in `schema`, which is first in `search_path`.
    pub async fn prepare_in(
        client: &Connection,
        (search_path, schema): (&str, &str),
        of_key: &KeyTable,
        tables: &[Table],
    ) -> Result<Self, DbError> {
        client.batch_execute(&format!("set local search_path = {search_path}")).await?;
        let mut is_there = Vec::new();
        for table in tables {
            let name = format!("{schema}.{}", table.name);
            is_there.push(client.query_one("select to_regclass($1) is not null", &[&name]).await?.try_get(0)?);
        }
        let key = of_key.key;
        let ahead = format!("this.{key} collate \"C\" >= $1 order by this.{key} collate \"C\" limit $2");
        let named = format!("this.{key} = any ($1::text[])");
        let page = client.prepare(&key_prints(of_key, tables, &is_there, &ahead)).await?;
        let some = client.prepare(&key_prints(of_key, tables, &is_there, &named)).await?;
        let mut statements = Vec::new();
        for (table, is_there) in tables.iter().zip(is_there) {
            statements.push(if is_there {
                Some((client.prepare(&table.row_prints()).await?, client.prepare(&table.row_texts()).await?))
            } else {
                None
            });
        }
        Ok(BuildRows { search_path: search_path.to_owned(), page, some, tables: statements })
    }

    /// Statements were prepared under the build's search path, and mean its tables while that is set.
    async fn enter(&self, client: &Connection) -> Result<(), DbError> {
        client.batch_execute(&format!("set local search_path = {}; set local timezone = 'UTC'", self.search_path)).await
    }

    /// Up to `limit` keys from `from` on, in the order of their bytes.
    pub async fn page(&self, client: &Connection, from: &str, limit: i64) -> Result<Vec<Print>, DbError> {
        self.enter(client).await?;
        client.query(&self.page, &[&from, &limit]).await?.iter().map(print).collect()
    }

    /// Those of these keys that the build has.
    pub async fn some(&self, client: &Connection, keys: &[&str]) -> Result<Vec<Print>, DbError> {
        self.enter(client).await?;
        client.query(&self.some, &[&keys]).await?.iter().map(print).collect()
    }

    /// The hash of each row that these keys have in the table of that number.
    pub async fn row_prints(
        &self,
        client: &Connection,
        table: usize,
        keys: &[&str],
    ) -> Result<BTreeMap<Place, i64>, DbError> {
        let Some((prints, _)) = &self.tables[table] else { return Ok(BTreeMap::new()) };
        self.enter(client).await?;
        let rows = client.query(prints, &[&keys]).await?;
        rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
    }

    /// Every row that a key has in the table of that number, by its number.
    pub async fn rows_of(
        &self,
        client: &Connection,
        table: usize,
        key: &str,
    ) -> Result<BTreeMap<i64, RowText>, DbError> {
        let prints = self.row_prints(client, table, &[key]).await?;
        let places: Vec<&Place> = prints.keys().collect();
        let rows = self.row_texts(client, table, &places).await?;
        Ok(rows.into_iter().map(|((_, number), row)| (number, row)).collect())
    }

    /// The values of these rows of the table of that number.
    pub async fn row_texts(
        &self,
        client: &Connection,
        table: usize,
        places: &[&Place],
    ) -> Result<BTreeMap<Place, RowText>, DbError> {
        let Some((_, texts)) = &self.tables[table] else { return Ok(BTreeMap::new()) };
        let (keys, numbers): (Vec<&str>, Vec<i64>) = places.iter().map(|(key, number)| (key.as_str(), *number)).unzip();
        self.enter(client).await?;
        client.query(texts, &[&keys, &numbers]).await?.iter().map(row_text).collect()
    }
}

/// Takes the rows of a key out of the view's tables; the ledger stays.
pub async fn delete_key(writing: Writing<'_>, rows: &KeyedRows, key: &str) -> Result<(), DbError> {
    let of_details = rows.details.iter().map(|table| (table.name, table.key));
    for (name, column) in [(rows.of_key.name, rows.of_key.key)].into_iter().chain(of_details) {
        writing.client().execute(&format!("delete from {name} where {column} = $1"), &[&key]).await?;
    }
    Ok(())
}

fn print(row: &Row) -> Result<Print, DbError> {
    let (rows, hashes): (Vec<i64>, Vec<i64>) = (row.try_get(2)?, row.try_get(3)?);
    let tables = rows.into_iter().zip(hashes).map(|(rows, hash)| TablePrint { rows, hash }).collect();
    Ok(Print { key: row.try_get(0)?, sequence: row.try_get(1)?, tables })
}

fn row_text(row: &Row) -> Result<(Place, RowText), DbError> {
    let names: Option<Vec<String>> = row.try_get(2)?;
    let texts: Option<Vec<Option<String>>> = row.try_get(3)?;
    let values = names.unwrap_or_default().into_iter().zip(texts.unwrap_or_default()).collect();
    Ok(((row.try_get(0)?, row.try_get(1)?), values))
}
