//! The cost model of `docs/scaling.md`, fitted to the saved growth series: whether it still explains what was measured.

use std::collections::BTreeMap;

use serde_json::Value;

/// A measured point: microseconds of CPU per event (service and Postgres), orders per event, events.
type Point = (&'static str, f64, f64);

/// The variants that the model is about, with orders per event and events.
const POINTS: [Point; 5] = [
    ("growth, base of 1000000 events", 1.0 / 3.0, 1e6),
    ("growth, the base again", 1.0 / 3.0, 1e6),
    ("growth, 3000000 events", 1.0 / 3.0, 3e6),
    ("growth, 3000000 events, 300000 orders of 10", 0.1, 3e6),
    ("growth, 3000000 events, 3000000 orders of 1", 1.0, 3e6),
];

/// What a point is explained by: the event itself, its share of a new order, doublings of the tables.
fn features((_, orders_per_event, events): Point) -> [f64; 3] {
    [1.0, orders_per_event, (events / 1e6).log2()]
}

/// Least squares of the relative errors, by the normal equations.
fn fit(points: &[(Point, f64)]) -> [f64; 3] {
    let mut rows = [[0.0; 4]; 3];
    for (point, measured) in points {
        let scaled = features(*point).map(|feature| feature / measured);
        for (row, of_row) in rows.iter_mut().zip(scaled) {
            for (cell, of_column) in row.iter_mut().zip(scaled.into_iter().chain([1.0])) {
                *cell += of_row * of_column;
            }
        }
    }
    for pivot in 0..3 {
        for other in (0..3).filter(|other| *other != pivot) {
            let factor = rows[other][pivot] / rows[pivot][pivot];
            let of_pivot = rows[pivot];
            rows[other].iter_mut().zip(of_pivot).for_each(|(cell, above)| *cell -= factor * above);
        }
    }
    [0, 1, 2].map(|row| rows[row][3] / rows[row][row])
}

#[test]
fn the_cost_model_explains_the_growth_that_was_measured() {
    let saved: Value = serde_json::from_str(include_str!("../../benches/results.json")).unwrap();
    let measured: BTreeMap<&str, f64> = POINTS
        .iter()
        .map(|(name, ..)| {
            (*name, saved["figures"][format!("{name}: CPU of both")]["median"].as_f64().expect("the series is saved"))
        })
        .collect();
    let points: Vec<(Point, f64)> = POINTS.iter().map(|point| (*point, measured[point.0])).collect();
    let model = fit(&points);
    println!("us/event = {:.2} + {:.2} * orders/event + {:.2} * log2(events / million)", model[0], model[1], model[2]);
    assert!(model.iter().all(|factor| *factor > 0.0), "{model:?}");
    for (point, measured) in points {
        let told: f64 = features(point).iter().zip(model).map(|(feature, factor)| feature * factor).sum();
        let off = told / measured - 1.0;
        println!("{:<45} measured {measured:6.2}, told {told:6.2}, {:+.1} %", point.0, 100.0 * off);
        assert!(off.abs() < 0.15, "{}: measured {measured}, told {told}", point.0);
    }
}
