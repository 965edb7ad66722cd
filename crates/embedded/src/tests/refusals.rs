//! What is refused: each with its code and its place.

use super::support::*;
use crate::check::depth;
use crate::plan::{Prepared, Purpose};

/// Code, line and column, statement. `~` stands before what is deployed.
const CORPUS: &[(&str, u32, u32, &str)] = &[
    // An aggregate without a window.
    ("needs_window", 1, 1, "select count(*) from orders"),
    ("needs_window", 1, 43, "select customer, count(*) from orders o   group by customer"),
    ("needs_window", 1, 1, "select sum(amount) from orders where quantity > 1"),
    ("needs_window", 1, 27, "select status from orders group by status"),
    ("needs_window", 1, 52, "select date_part('hour', ts), count(*) from orders group by date_part('hour', ts)"),
    ("needs_window", 1, 1, "select max(ts) from orders having max(ts) > '2026-01-01'"),
    ("needs_window", 2, 1, "select count(*) as n, status from orders\ngroup by status"),
    // What would remember every row.
    ("unbounded_state", 1, 8, "select distinct customer from orders"),
    ("unbounded_state", 1, 23, "select id from orders union select id from refunds"),
    ("unbounded_state", 1, 29, "select customer from orders union select customer from customers"),
    // Joins.
    ("stream_join", 1, 27, "select o.id from orders o join refunds r on o.id = r.id"),
    ("stream_join", 1, 27, "select a.id from orders a join orders b on a.id = b.id"),
    ("stream_join", 1, 26, "select o.id from orders o, refunds r where o.id = r.id"),
    ("stream_join", 1, 32, "select o.id from orders o left join refunds r on o.id = r.id"),
    ("stream_join", 1, 33, "select o.id from orders o cross join refunds r"),
    ("outer_stream", 1, 27, "select o.id from orders o right join customers c on o.customer = c.customer"),
    ("outer_stream", 1, 27, "select o.id from orders o full join customers c on o.customer = c.customer"),
    ("outer_stream", 1, 32, "select c.city from customers c left join orders o on o.customer = c.customer"),
    ("join_keys", 1, 27, "select o.id from orders o join customers c on o.quantity > c.level"),
    ("join_keys", 1, 33, "select o.id from orders o cross join customers c"),
    ("join_keys", 1, 44, "select o.id from orders o join customers c on o.status = c.city"),
    ("join_keys", 1, 44, "select o.id from orders o join customers c on o.customer = upper(c.customer)"),
    ("join_keys", 1, 69, "select o.id from orders o left join (select level from customers) c on o.quantity = c.level"),
    ("unsupported", 1, 13, "select city from customers"),
    ("unsupported", 1, 32, "select a.city from customers a join customers b on a.city = b.city"),
    // Windows.
    ("unsupported_window", 1, 25, "select id, row_number() over (partition by customer order by ts) from orders"),
    ("unsupported_window", 1, 20, "select sum(amount) over () from orders"),
    ("unsupported_window", 1, 22, "select lag(quantity) over (order by ts) from orders"),
    (
        "unsupported_window",
        1,
        38,
        "select count(*) from orders group by date_bin(interval '1 minute', ts, timestamp '2001-01-01')",
    ),
    (
        "nested_window",
        1,
        29,
        "select count(*) from orders group by tumble(ts, interval '1 minute'), tumble(ts, interval '5 minutes')",
    ),
    (
        "nested_window",
        1,
        94,
        "select count(*) from (select tumble(ts, interval '1 minute') as w, count(*) as n from orders group by 1) group by w",
    ),
    (
        "nested_window",
        1,
        92,
        "select max(n) from (select tumble(ts, interval '1 minute') as w, count(*) as n from orders group by 1) group by tumble(w, interval '1 hour')",
    ),
    ("window_size", 1, 38, "select count(*) from orders group by hop(ts, interval '2 minutes', interval '3 minutes')"),
    ("window_size", 1, 38, "select count(*) from orders group by tumble(ts, interval '2 hours')"),
    ("window_size", 1, 38, "select count(*) from orders group by date_trunc('day', ts)"),
    ("window_size", 1, 38, "select count(*) from orders group by date_trunc('month', ts)"),
    ("window_size", 1, 38, "select count(*) from orders group by date_trunc('week', ts)"),
    ("window_size", 1, 38, "select count(*) from orders group by tumble(ts, interval '1 month')"),
    ("window_size", 1, 38, "select count(*) from orders group by tumble(ts, interval '0 seconds')"),
    ("window_size", 1, 38, "select count(*) from orders group by hop(ts, interval '1 second', interval '1 hour')"),
    ("window_time", 1, 38, "select count(*) from orders group by tumble(timestamp '2026-01-01', interval '1 minute')"),
    ("window_time", 1, 38, "select count(*) from orders group by date_trunc('hour', ts at time zone 'Asia/Kolkata')"),
    ("window_time", 1, 38, "select count(*) from orders group by tumble(ts at time zone 'UTC', interval '1 minute')"),
    (
        "window_size",
        1,
        38,
        "select count(*) from orders group by tumble(to_timestamp_seconds(id), interval '400 milliseconds')",
    ),
    (
        "window_size",
        1,
        38,
        "select count(*) from orders group by hop(to_timestamp_seconds(id), interval '1.5 seconds', interval '3 seconds')",
    ),
    ("invalid", 1, 38, "select count(*) from orders group by tumble(id, interval '1 minute')"),
    ("invalid", 1, 38, "select count(*) from orders group by tumble(ts, 5)"),
    ("invalid", 1, 38, "select count(*) from orders group by tumble(ts)"),
    ("unsupported", 1, 38, "select count(*) from orders group by rollup(customer, tumble(ts, interval '1 minute'))"),
    ("unsupported", 1, 38, "select count(*) from orders group by grouping sets ((customer), (status))"),
    ("needs_order", 1, 8, "select first_value(customer) from orders group by tumble(ts, interval '1 minute')"),
    ("needs_order", 1, 8, "select last_value(customer) from orders group by tumble(ts, interval '1 minute')"),
    // Order and ends.
    ("endless_sort", 1, 23, "select id from orders order by ts"),
    ("endless_sort", 1, 23, "select id from orders order by amount desc limit 5"),
    ("limit_in_persistent", 1, 23, "~select id from orders limit 5"),
    ("unsupported", 1, 31, "select id from orders limit 5 offset 2"),
    ("unsupported", 1, 39, "select id from (select id from orders limit 5) x"),
    // Queries in expressions.
    ("subquery", 1, 38, "select id from orders where customer in (select customer from customers)"),
    (
        "subquery",
        1,
        29,
        "select id from orders where exists (select 1 from customers c where c.customer = orders.customer)",
    ),
    ("subquery", 1, 1, "select id, (select max(level) from customers) as m from orders"),
    ("subquery", 1, 40, "select id from orders where quantity > all (select level from customers)"),
    // What a restart would change.
    ("not_deterministic", 1, 34, "~select id from orders where ts > now()"),
    ("not_deterministic", 1, 12, "~select id, random() as r from orders"),
    ("not_deterministic", 1, 12, "~select id, uuid() as u from orders"),
    ("not_deterministic", 1, 12, "~select id, current_date as d from orders"),
    ("not_deterministic", 1, 12, "~select id, current_timestamp as d from orders"),
    ("not_deterministic", 1, 12, "~select id, current_time as d from orders"),
    ("not_deterministic", 1, 31, "~select id from orders o where random() < 0.5"),
    // What is no SELECT over topics.
    ("select_only", 1, 1, "insert into orders values (1)"),
    ("select_only", 1, 1, "create table x as select * from orders"),
    ("select_only", 1, 1, "create external table x stored as csv location '/etc/passwd'"),
    ("select_only", 1, 1, "copy (select * from orders) to '/tmp/x.csv'"),
    ("select_only", 1, 1, "copy orders to '/tmp/x.csv'"),
    ("select_only", 1, 1, "set datafusion.execution.batch_size = 1"),
    ("select_only", 1, 1, "explain select id from orders"),
    ("select_only", 1, 1, "explain analyze select id from orders"),
    ("select_only", 1, 1, "show tables"),
    ("select_only", 1, 1, "drop table orders"),
    ("select_only", 1, 1, "delete from orders"),
    ("select_only", 1, 1, "update orders set id = 1"),
    ("select_only", 1, 1, "prepare p as select id from orders"),
    ("select_only", 1, 1, "describe orders"),
    ("select_only", 1, 1, "truncate table orders"),
    ("select_only", 1, 1, "begin"),
    ("select_only", 1, 1, "select id from orders; select id from refunds"),
    ("select_only", 1, 1, ""),
    ("no_source", 1, 1, "select 1"),
    ("no_source", 1, 1, "values (1), (2)"),
    ("no_source", 1, 16, "select * from (values (1), (2)) x"),
    ("unsupported", 1, 1, "select * from generate_series(1, 3)"),
    ("unsupported", 1, 8, "select unnest(array[1, 2]) from orders"),
    ("not_found", 1, 15, "select * from information_schema.tables"),
    ("not_found", 1, 1, "select * from '/etc/passwd'"),
    ("not_found", 1, 15, "select * from \"/etc/passwd\""),
    ("not_found", 1, 15, "select * from nothing"),
    ("not_found", 1, 15, "select * from other.orders"),
    ("unsupported", 1, 1, "with recursive r as (select id from orders union all select id + 1 from r) select * from r"),
    ("select_only", 1, 1, "select id into x from orders"),
    // Names.
    ("not_found", 1, 8, "select statuss from orders"),
    ("not_found", 2, 8, "select id from orders\n where nothing = 1"),
    ("not_found", 1, 8, "select o.nothing from orders o"),
    ("not_found", 1, 8, "select x.id from orders o"),
    ("not_found", 1, 8, "select c._offset from customers c join orders o on o.customer = c.customer"),
    ("ambiguous", 1, 8, "select customer from orders o join customers c on o.customer = c.customer"),
    ("unknown_function", 1, 8, "select nofun(id) from orders"),
    ("unknown_function", 1, 8, "select pg_sleep(id) from orders"),
    ("duplicate_column", 1, 8, "select id, id from orders"),
    (
        "duplicate_column",
        1,
        10,
        "select o.customer, c.customer from orders o join customers c on o.customer = c.customer",
    ),
    // Types.
    ("invalid", 1, 8, "select customer + id from orders"),
    ("invalid", 1, 1, "select id from orders where quantity like id and customer"),
    ("invalid", 1, 8, "select upper(id, 3) from orders"),
    (
        "not_grouped",
        1,
        33,
        "select customer, count(*) as n, status from orders group by customer, tumble(ts, interval '1 minute')",
    ),
    // Grammar.
    ("syntax", 1, 1, "selec id from orders"),
    ("syntax", 1, 28, "select id from orders where"),
    ("syntax", 1, 12, "select from"),
    ("syntax", 1, 42, "select id from orders where (quantity > 1"),
    ("syntax", 1, 8, "select 'open from orders"),
    // Never a row.
    ("always_false", 1, 23, "select id from orders where false"),
    ("always_false", 1, 23, "select id from orders where 1 = 2"),
    ("always_false", 1, 29, "select count(*) from orders where false group by tumble(ts, interval '1 minute')"),
];

#[test]
fn every_query_of_the_refusal_corpus_gets_its_code() {
    let mut wrong = Vec::new();
    for (code, line, column, text) in CORPUS {
        let (sql, purpose) = match text.strip_prefix('~') {
            Some(sql) => (sql, Purpose::Persistent),
            None => (*text, Purpose::AdHoc),
        };
        match prepared_for(sql, purpose) {
            Ok(_) => wrong.push(format!("{sql}: passed")),
            Err(refusal) => {
                let found = (refusal.code.as_str(), refusal.line.unwrap(), refusal.column.unwrap());
                if found != (*code, *line, *column) {
                    wrong.push(format!("{found:?} and not {:?}: {sql}: {}", (code, line, column), refusal.message));
                }
                let internals = ["Exec", "Plan:", "DataFusion", "Internal", "LogicalPlan", "{", "\n"];
                if internals.iter().any(|word| refusal.message.contains(word)) || refusal.message.len() > 450 {
                    wrong.push(format!("{sql}: {}", refusal.message));
                }
            }
        }
    }
    assert!(CORPUS.len() >= 100, "{}", CORPUS.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CORPUS.len(), wrong.join("\n"));
}

#[test]
fn what_is_wrong_in_a_deployed_query_only_can_be_looked_at() {
    for sql in [
        "select id from orders where ts > now()",
        "select id, random() as r from orders",
        "select id from orders limit 5",
        "select tumble(ts, interval '1 minute') as w, count(*) as n from orders group by tumble(ts, interval '1 minute'), customer",
    ] {
        assert!(prepared_for(sql, Purpose::AdHoc).is_ok(), "{sql}");
        assert!(prepared_for(sql, Purpose::Persistent).is_err(), "{sql}");
    }
}

#[test]
fn what_can_be_run_is_not_refused() {
    for sql in [
        "with o as (select id, quantity * 2 as q from orders) select id from o where q between 2 and 8",
        "select id, case when quantity > 1 then 'many' else 'one' end as word from orders where status in ('a', 'b')",
        "select id, try_cast(customer as int) as n, customer ~ '^a' as m, customer ilike 'A%' as i from orders",
        "select id from \"orders\" where customer is not null",
        "select id from ORDERS",
        "select id, city from orders join customers using (customer)",
        // An order within is no order of what comes out.
        "select id from (select id from orders order by ts) x",
        "select to_timestamp_millis(id) as t, to_char(ts, '%Y') as y, date_bin(interval '1 hour', ts) as h from orders",
        "select id, coalesce(status, 'none') as s, date_part('year', ts) as y, abs(quantity) as a from orders",
        "select w, count(*) as n from (select date_trunc('minute', ts) as w from orders) group by w",
        "select date_bin(interval '15 minutes', ts) as w, count(*) as n from orders group by 1 order by n desc limit 3",
        "select customer, sum(amount) as s from orders group by customer, tumble(_timestamp, interval '10 seconds')",
        "select tumble(ts, interval '1 minute') + interval '1 minute' as until, count(*) as n from orders group by tumble(ts, interval '1 minute')",
    ] {
        prepared_for(sql, Purpose::Persistent)
            .map(|_: Prepared| ())
            .unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
    }
}

#[test]
fn what_a_deployed_window_is_grouped_by_is_in_its_key() {
    let by = "from orders group by tumble(ts, interval '1 minute')";
    for (sql, missing) in [
        (format!("select tumble(ts, interval '1 minute') as w, count(*) as n {by}, customer"), "`customer`"),
        (format!("select status, count(*) as n {by}, customer, status"), "`customer`"),
        (format!("select upper(customer) as c, count(*) as n {by}, customer"), "`customer`"),
        (format!("select count(*) as n {by}, upper(customer)"), "`upper(orders.customer)`"),
        (format!("select n from (select customer, count(*) as n {by}, customer) as x where n > 1"), "`customer`"),
    ] {
        let refusal = prepared_for(&sql, Purpose::Persistent).map(|_| ()).unwrap_err();
        assert_eq!(refusal.code, "needs_key", "{sql}: {refusal:?}");
        assert!(refusal.message.starts_with(missing) && refusal.column > Some(10), "{sql}: {refusal:?}");
        assert!(prepared_for(&sql, Purpose::AdHoc).is_ok(), "{sql}");
    }
    for (sql, key) in [
        (format!("select count(*) as n {by}"), vec![]),
        (format!("select count(*) as n, customer as c {by}, customer"), vec![1]),
        (format!("select count(*) as n, upper(customer) as c {by}, upper(customer), 'x'"), vec![1]),
        (format!("select n, c from (select customer as c, count(*) as n {by}, customer) as x where n > 1"), vec![1]),
    ] {
        let prepared = prepared_for(&sql, Purpose::Persistent).unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
        assert_eq!(prepared.key(), key, "{sql}");
    }
}

#[test]
fn constants_that_are_made_of_constants_are_bounded() {
    let made = |letters: usize| format!("replace('{}', 'a', '{}')", "a".repeat(256), "b".repeat(letters));
    let code = |columns: &str| {
        let judged = prepared_for(&format!("select id, {columns} from orders"), Purpose::AdHoc);
        judged.map(|_| ()).map_err(|refusal| (refusal.code, refusal.line, refusal.column))
    };
    let refused = Err(("limit_exceeded".to_owned(), Some(1), Some(1)));
    assert_eq!(code(&format!("{} as x", made(512))), Ok(()));
    assert_eq!(code(&format!("{} as x, 'b' as y", made(512))), refused);
    assert_eq!(code(&format!("{0} as x, {0} as y", made(257))), refused);
    assert_eq!(code(&format!("{} as x", made(513))), refused);
    // What is between the texts of a group stands there millions of times.
    let between = |letters: usize| {
        let sql = format!("select string_agg(customer, '{}') as x from orders", "a".repeat(letters));
        let judged = prepared_for(&format!("{sql} group by tumble(ts, interval '1 minute')"), Purpose::AdHoc);
        judged.map(|_| ()).map_err(|refusal| (refusal.code, refusal.line, refusal.column))
    };
    assert_eq!(between(64), Ok(()));
    assert_eq!(between(65), Err(("limit_exceeded".to_owned(), Some(1), Some(8))));
    // Of as many as it has fields.
    let many = |columns: usize| {
        let one = format!("struct({})", vec!["id"; 500].join(", "));
        (0..columns).map(|number| format!("{one} as c{number}")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(code(&many(40)), refused);
    // A million letters, of a few hundred: to compare them would take hours.
    let long = format!("replace(replace('{0}', 'a', '{0}'), 'a', '{0}')", "a".repeat(100));
    let compared = code(&format!("levenshtein({long}, {long}) as x"));
    assert_eq!(compared, Err(("limit_exceeded".to_owned(), Some(1), Some(12))));
    // Lists have theirs, too.
    assert_eq!(code(&format!("array[{0}, {0}] as x", made(257))), refused);
    assert_eq!(code(&format!("length({}) as x", made(513))), Ok(()));
}

#[test]
fn a_pattern_is_no_row_s() {
    for (expr, column) in [
        ("regexp_like(customer, status)", 12),
        ("regexp_replace(customer, concat(status, 'a'), '')", 12),
        ("regexp_count(customer, status)", 12),
        ("customer ~ status", 21),
        ("customer !~* status", 21),
    ] {
        let refusal =
            prepared_for(&format!("select id, {expr} as x from orders"), Purpose::AdHoc).map(|_| ()).unwrap_err();
        let found = (refusal.code.as_str(), refusal.line, refusal.column);
        assert_eq!(found, ("unsupported", Some(1), Some(column)), "{expr}: {refusal:?}");
    }
    for expr in ["regexp_like(customer, 'a' || 'b+')", "customer ~ '^a'", "regexp_match(customer, 'a(b)')"] {
        prepared(&format!("select id, {expr} as x from orders"));
    }
}

#[test]
fn a_long_row_of_operators_ends_no_process() {
    // The stack of a worker of the runtime.
    let small = std::thread::Builder::new().stack_size(2 << 20);
    let judged = small.spawn(|| {
        for (first, next, each) in [
            ("1", "+1", 1),
            ("customer", "||'a'", 1),
            ("id", "::bigint", 1),
            ("id = 1", " or id = 1", 2),
            ("id", " is not null", 2),
            ("true", " and true", 1),
        ] {
            let row = |times: usize| format!("select {first}{} as x, id from orders", next.repeat(times));
            let begins = usize::from(first.contains('='));
            let most = (256 - begins) / each;
            let judged =
                |times: usize| prepared_for(&row(times), Purpose::AdHoc).map(|_| ()).map_err(|refusal| refusal.code);
            assert_eq!(judged(most), Ok(()), "{next}");
            assert_eq!(judged(most + 1), Err("limit_exceeded".to_owned()), "{next}");
            assert_eq!(judged(60_000 / next.len()), Err("limit_exceeded".to_owned()), "{next}");
        }
        let unions = format!("select id from orders{}", " union all select id from orders".repeat(2_000));
        assert_eq!(prepared_for(&unions, Purpose::AdHoc).map(|_| ()).unwrap_err().code, "limit_exceeded");
        // What does not hold each other counts by itself.
        let wide = |one: &str| format!("select id from orders where {}", [one; 40].join(" or "));
        let sum = "(id + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 > 100)";
        assert!(prepared_for(&wide(sum), Purpose::AdHoc).is_ok());
        let list = format!("select id from orders where id in ({})", vec!["1 + 1"; 1_000].join(", "));
        assert!(prepared_for(&list, Purpose::AdHoc).is_ok());
        let most = format!("select id{} as x from orders", " + 1".repeat(256));
        let mut runs = started(&most);
        // Jobs have such threads.
        let out = depth::with_room(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(runs.push(0, rows(&[order(1, "ada", 1, T)]), NOW)).unwrap().out
        });
        assert_eq!(lines(&out.unwrap()), ["257"]);
    });
    judged.unwrap().join().unwrap();
}
