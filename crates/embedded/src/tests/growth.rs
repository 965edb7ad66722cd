//! What functions make of rows, and that it ends no process.

use super::support::*;

#[tokio::test]
async fn a_row_of_which_too_much_would_be_made_is_refused_alone() {
    let replaced = format!("length(replace(customer, 'a', '{}'))", "b".repeat(4_096));
    for (expr, most) in [
        (replaced.as_str(), 4_096),
        ("length(regexp_replace(customer, '^', customer))", 8 << 20),
        ("length(concat(customer, customer))", 8 << 20),
        ("length(customer || customer)", 8 << 20),
        ("length(concat_ws('', customer, customer))", 8 << 20),
        // Together they make no more.
        ("length(concat(customer, 'a')) + length(concat(customer, 'b'))", (8 << 20) - 1),
        ("levenshtein(customer, customer)", 1_000),
    ] {
        let mut runs = started(&format!("select id, {expr} as x from orders"));
        let texts = [1, most, most + 1].map(|letters| "a".repeat(letters));
        let orders: Vec<Order> = (1..).zip(&texts).map(|(id, text)| order(id, text, 1, T)).collect();
        let pushed = runs.push(0, rows(&orders), NOW).await.unwrap();
        let refused: Vec<(i64, bool)> =
            pushed.refused.iter().map(|row| (row.offset, row.why.ends_with(" are the most"))).collect();
        assert_eq!((lines(&pushed.out).len(), refused), (2, vec![(3, true)]), "{expr}");
    }
}

#[tokio::test]
async fn a_text_that_grows_with_each_query_ends_no_process() {
    let steps: String = (1..=15)
        .map(|number| format!(", s{number} as (select id, x || x || x || x as x from s{})", number - 1))
        .collect();
    let sql = format!("with s0 as (select id, customer as x from orders){steps} select id, length(x) as n from s15");
    let mut runs = started(&sql);
    let pushed = runs.push(0, rows(&[order(1, "", 1, T), order(2, "a", 1, T)]), NOW).await.unwrap();
    assert_eq!(lines(&pushed.out), ["1|0"]);
    assert!(matches!(pushed.refused.as_slice(), [row] if row.offset == 2), "{:?}", pushed.refused);
}

#[tokio::test]
async fn a_batch_of_which_too_much_comes_ends_its_query() {
    let mut runs = started("select id, concat(customer, customer) as x from orders");
    let text = "a".repeat(8 << 20);
    let orders: Vec<Order> = (1..=3).map(|id| order(id, &text, 1, T)).collect();
    let failure = runs.push(0, rows(&orders), NOW).await.map(|_| ()).unwrap_err();
    assert_eq!(failure.code, "limit_exceeded", "{failure:?}");
    let mut runs = started("select id, concat(customer, customer) as x from orders");
    assert_eq!(lines(&runs.push(0, rows(&orders[..1]), NOW).await.unwrap().out).len(), 1);
}

#[tokio::test]
async fn a_group_of_which_too_much_would_be_made_fails_alone_and_all_together_end_their_query() {
    let sql = "select id, length(concat(max(customer), max(customer))) as n from orders \
               group by id, tumble(ts, interval '1 minute')";
    let closed = async |letters: [usize; 2]| {
        let mut runs = started(sql);
        for (id, letters) in (1..).zip(letters) {
            runs.push(0, rows(&[order(id, &"a".repeat(letters), 1, T)]), NOW).await.unwrap();
        }
        runs.push(0, rows(&[order(3, "b", 1, T + 600_000)]), NOW).await.unwrap();
        let out = runs.close(NOW).await.map(|out| lines(&out));
        (out.map_err(|failure| failure.code), runs.take_failed_groups().len())
    };
    assert_eq!(closed([1, (8 << 20) + 1]).await, (Ok(vec!["1|2".to_owned()]), 1));
    assert_eq!(closed([5 << 20, 5 << 20]).await, (Err("limit_exceeded"), 0));
}

#[tokio::test]
async fn what_was_made_of_other_rows_is_not_counted_again() {
    let time = "to_timestamp_millis(id * 1000 + length(concat(customer, 'a')) * 0)";
    let mut runs = started(&format!("select count(*) as n from orders group by tumble({time}, interval '1 minute')"));
    runs.push(0, rows(&[order(10_000_000, "a", 1, T)]), NOW).await.unwrap();
    runs.close(NOW).await.unwrap();
    // They are too late for any window, so that nothing more is done with them.
    for offset in 1..=3 {
        let pushed = runs.push(0, rows(&[order(offset, &"a".repeat(9 << 20), 1, T)]), NOW).await.unwrap();
        assert_eq!((pushed.late.len(), pushed.refused.len()), (1, 0));
    }
}

#[tokio::test]
async fn where_constants_are_long_fewer_rows_are_taken_at_once() {
    let long = format!("replace('{}', 'a', '{}')", "a".repeat(256), "b".repeat(256));
    let mut runs = started(&format!("select id, coalesce(nullif(customer, 'a'), {long}) as x from orders"));
    // 64 KiB, which either column may have: 16 MiB are those of 128 rows.
    let orders: Vec<Order> = (1..=1_000).map(|id| order(id, "b", 1, T)).collect();
    let out = runs.push(0, rows(&orders), NOW).await.unwrap().out;
    assert!(out.len() > 4 && lines(&out).len() == 1_000, "{} batches", out.len());
    let mut runs = started("select id, coalesce(customer, 'a') as x from orders");
    assert_eq!(runs.push(0, rows(&orders), NOW).await.unwrap().out.len(), 1);
}
