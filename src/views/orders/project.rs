//! Folds order events into an order. Pure: no I/O, no clock, no database types.
//!
//! Content is never vetoed: what is odd is applied and flagged. Refused is only what cannot be represented.

use std::borrow::Cow;

use crate::domain::decimal::{Decimal, Overflow, minor_unit_digits};
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::Micros;
use crate::views::orders::event::{Item, OrderEvent};

/// An order between two events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderState {
    /// Null until `OrderCreated` is seen.
    pub customer_id: Option<Box<str>>,
    /// `Created` after `OrderCreated`, then whatever the events say.
    pub status: Option<Box<str>>,
    /// Null until `OrderCreated` is seen.
    pub currency: Option<Box<str>>,
    /// Sum of the net line totals.
    pub total_net: Decimal,
    /// Sum of the gross line totals.
    pub total_gross: Decimal,
    /// Number of lines.
    pub item_count: i32,
    /// Greatest `occurredAt` seen, microseconds since the epoch.
    pub updated_at: Option<Micros>,
    /// Where tax rates came from so far.
    pub tax_basis: TaxBasis,
    /// What was odd.
    pub anomalies: Anomalies,
}

/// Where the rates behind `total_gross` came from. The strongest source any line used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaxBasis {
    /// No rate known: gross equals net.
    #[default]
    None,
    /// The configured default rate.
    Config,
    /// A rate in an event.
    Event,
}

impl TaxBasis {
    /// The word stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            TaxBasis::None => "none",
            TaxBasis::Config => "config",
            TaxBasis::Event => "event",
        }
    }

    /// Reads the stored word.
    pub fn from_stored(word: &str) -> TaxBasis {
        match word {
            "event" => TaxBasis::Event,
            "config" => TaxBasis::Config,
            _ => TaxBasis::None,
        }
    }
}

/// A set of oddities of an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Anomalies(u8);

impl Anomalies {
    /// An event was applied before any `OrderCreated`.
    pub const MISSING_CREATED: Anomalies = Anomalies(1);
    /// `OrderCreated` came again; its content was ignored.
    pub const REPEATED_CREATED: Anomalies = Anomalies(2);
    /// A quantity or price below zero.
    pub const NEGATIVE_AMOUNT: Anomalies = Anomalies(4);
    /// A quantity of zero.
    pub const ZERO_QUANTITY: Anomalies = Anomalies(8);
    /// The status left a final one, or went back to `Created`.
    pub const UNEXPECTED_TRANSITION: Anomalies = Anomalies(16);
    /// An event happened before the one with the preceding number.
    pub const TIME_WENT_BACK: Anomalies = Anomalies(32);

    const NAMED: [(Anomalies, &'static str); 6] = [
        (Anomalies::MISSING_CREATED, "missing_created"),
        (Anomalies::REPEATED_CREATED, "repeated_created"),
        (Anomalies::NEGATIVE_AMOUNT, "negative_amount"),
        (Anomalies::ZERO_QUANTITY, "zero_quantity"),
        (Anomalies::UNEXPECTED_TRANSITION, "unexpected_transition"),
        (Anomalies::TIME_WENT_BACK, "time_went_back"),
    ];

    /// Adds `other`.
    pub fn add(&mut self, other: Anomalies) {
        self.0 |= other.0;
    }

    /// The names, in a fixed order.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMED.iter().filter(|(flag, _)| self.0 & flag.0 != 0).map(|(_, name)| *name).collect()
    }

    /// The set with these names; unknown names are left out.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut set = Anomalies::default();
        for name in names {
            for (flag, known) in Self::NAMED {
                if known == name {
                    set.add(flag);
                }
            }
        }
        set
    }

    fn contains(self, other: Anomalies) -> bool {
        self.0 & other.0 != 0
    }

    fn count(self) -> u64 {
        u64::from(self.0.count_ones())
    }
}

/// A line with its totals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Position in the order, from 1.
    pub line_no: i32,
    /// The line as the event states it.
    pub item: Item<'a>,
    /// qty × price, rounded half-even to the currency's minor unit.
    pub net: Decimal,
    /// net × (1 + rate), rounded likewise.
    pub gross: Decimal,
}

/// Settings of the fold. Part of the view's meaning: another rate is another build.
#[derive(Debug, Clone, Copy)]
pub struct TaxPolicy {
    /// Rate for items without one; zero means that no rate is known.
    pub default_rate: Decimal,
}

/// Applies one event. On `Err` the order is unchanged. Returns how many oddities this event showed.
pub fn project<'a>(
    policy: TaxPolicy,
    order: &mut OrderState,
    event: OrderEvent<'a>,
    occurred_at: Micros,
    lines: &mut Vec<Line<'a>>,
) -> Result<u64, Poison> {
    let mut odd = Anomalies::default();
    let created = order.currency.is_some() || matches!(event, OrderEvent::Created { .. });
    if !created && !order.anomalies.contains(Anomalies::MISSING_CREATED) {
        odd.add(Anomalies::MISSING_CREATED);
    }
    if order.updated_at.is_some_and(|previous| occurred_at < previous) {
        odd.add(Anomalies::TIME_WENT_BACK);
    }
    match event {
        OrderEvent::Created { customer_id, currency, items } => {
            create(policy, order, (customer_id, currency, items), lines, &mut odd)?;
        }
        OrderEvent::ItemAdded(item) => add_items(policy, order, vec![item], lines, &mut odd)?,
        OrderEvent::StatusChanged { status } => {
            if is_odd_transition(order.status.as_deref(), &status) {
                odd.add(Anomalies::UNEXPECTED_TRANSITION);
            }
            order.status = Some(status.into());
        }
    }
    order.updated_at = order.updated_at.max(Some(occurred_at));
    order.anomalies.add(odd);
    Ok(odd.count())
}

fn create<'a>(
    policy: TaxPolicy,
    order: &mut OrderState,
    (customer_id, currency, items): (Cow<'a, str>, Cow<'a, str>, Vec<Item<'a>>),
    lines: &mut Vec<Line<'a>>,
    odd: &mut Anomalies,
) -> Result<(), Poison> {
    if let Some(known) = order.currency.as_deref() {
        if known != currency {
            let detail = format!("OrderCreated says currency {currency}, but the order is in {known}");
            return Err(Poison::new(Reason::CurrencyMismatch, detail));
        }
        odd.add(Anomalies::REPEATED_CREATED);
        return Ok(());
    }
    order.currency = Some(currency.into());
    if let Err(poison) = add_items(policy, order, items, lines, odd) {
        order.currency = None;
        return Err(poison);
    }
    order.customer_id = Some(customer_id.into());
    order.status.get_or_insert_with(|| "Created".into());
    Ok(())
}

fn add_items<'a>(
    policy: TaxPolicy,
    order: &mut OrderState,
    items: Vec<Item<'a>>,
    lines: &mut Vec<Line<'a>>,
    odd: &mut Anomalies,
) -> Result<(), Poison> {
    let digits = minor_unit_digits(order.currency.as_deref());
    let (mut net_sum, mut gross_sum, mut basis) = (order.total_net, order.total_gross, order.tax_basis);
    let lines_before = lines.len();
    for (index, item) in items.into_iter().enumerate() {
        let (rate, item_basis) = match item.tax_rate {
            Some(rate) => (rate, TaxBasis::Event),
            None if policy.default_rate.is_zero() => (Decimal::ZERO, TaxBasis::None),
            None => (policy.default_rate, TaxBasis::Config),
        };
        let totals = line_totals(&item, rate, digits)
            .and_then(|(net, gross)| Ok((net, gross, net_sum.checked_add(net)?, gross_sum.checked_add(gross)?)));
        let (net, gross, nets, grosses) = match totals {
            Ok(totals) => totals,
            Err(Overflow) => {
                lines.truncate(lines_before);
                let detail = format!("the totals of item {} need more than 38 digits", item.item_id);
                return Err(Poison::new(Reason::Unrepresentable, detail));
            }
        };
        (net_sum, gross_sum, basis) = (nets, grosses, basis.max(item_basis));
        if item.qty.is_negative() || item.price.is_negative() {
            odd.add(Anomalies::NEGATIVE_AMOUNT);
        }
        if item.qty.is_zero() {
            odd.add(Anomalies::ZERO_QUANTITY);
        }
        // At most MAX_ITEMS lines per event, so this fits for any order of fewer than 200,000 full events.
        let line_no = order.item_count.saturating_add(index as i32).saturating_add(1);
        lines.push(Line { line_no, item, net, gross });
    }
    order.item_count = order.item_count.saturating_add((lines.len() - lines_before) as i32);
    (order.total_net, order.total_gross, order.tax_basis) = (net_sum, gross_sum, basis);
    Ok(())
}

fn line_totals(item: &Item<'_>, rate: Decimal, digits: u8) -> Result<(Decimal, Decimal), Overflow> {
    let net = item.qty.checked_mul(item.price)?.round_half_even(digits)?;
    let gross = net.checked_mul(Decimal::ONE.checked_add(rate)?)?.round_half_even(digits)?;
    Ok((net, gross))
}

/// Final statuses are left only by a return or refund; nothing goes back to `Created`. Unknown words are not judged.
fn is_odd_transition(from: Option<&str>, to: &str) -> bool {
    match (from, to) {
        (Some(from), "Created") => from != "Created",
        (Some("Delivered" | "Cancelled"), "Returned" | "Refunded") => false,
        (Some(from @ ("Delivered" | "Cancelled" | "Refunded")), to) => from != to,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: TaxPolicy = TaxPolicy { default_rate: Decimal::ZERO };

    fn item(qty: &str, price: &str, rate: Option<&str>) -> Item<'static> {
        let decimal = |text| Decimal::parse(text).unwrap();
        Item {
            item_id: "i".into(),
            sku: "s".into(),
            qty: decimal(qty),
            price: decimal(price),
            tax_rate: rate.map(decimal),
        }
    }

    fn created(currency: &'static str, items: Vec<Item<'static>>) -> OrderEvent<'static> {
        OrderEvent::Created { customer_id: "c".into(), currency: currency.into(), items }
    }

    fn fold(events: Vec<OrderEvent<'static>>) -> (OrderState, Vec<Line<'static>>) {
        let (mut order, mut lines) = (OrderState::default(), Vec::new());
        for (time, event) in events.into_iter().enumerate() {
            project(POLICY, &mut order, event, Micros(time as i64), &mut lines).unwrap();
        }
        (order, lines)
    }

    #[test]
    fn totals_are_sums_of_lines_rounded_to_the_currency() {
        let (order, lines) = fold(vec![
            created("EUR", vec![item("3", "0.335", None), item("1", "10", Some("0.19"))]),
            OrderEvent::ItemAdded(item("2", "1.005", Some("0.07"))),
        ]);
        let shown: Vec<_> = lines.iter().map(|l| (l.line_no, l.net.to_string(), l.gross.to_string())).collect();
        assert_eq!(
            shown,
            [(1, "1.00".into(), "1.00".into()), (2, "10.00".into(), "11.90".into()), (3, "2.01".into(), "2.15".into())]
        );
        assert_eq!((order.total_net.to_string(), order.total_gross.to_string()), ("13.01".into(), "15.05".into()));
        assert_eq!((order.item_count, order.tax_basis), (3, TaxBasis::Event));
        let (yen, _) = fold(vec![created("JPY", vec![item("1", "99.5", None)])]);
        assert_eq!(yen.total_net.to_string(), "100");
    }

    #[test]
    fn odd_content_is_applied_and_flagged() {
        let (order, _) = fold(vec![
            OrderEvent::StatusChanged { status: "Cancelled".into() },
            OrderEvent::ItemAdded(item("-1", "5", None)),
            created("EUR", vec![item("0", "5", None)]),
            created("EUR", vec![item("7", "7", None)]),
            OrderEvent::StatusChanged { status: "Paid".into() },
        ]);
        let expected =
            ["missing_created", "repeated_created", "negative_amount", "zero_quantity", "unexpected_transition"];
        assert_eq!(order.anomalies.names(), expected);
        assert_eq!(Anomalies::from_names(expected), order.anomalies);
        assert_eq!((order.total_net.to_string(), order.item_count), ("-5.00".into(), 2));
    }

    #[test]
    fn a_refused_event_changes_nothing() {
        let (mut order, mut lines) = fold(vec![created("EUR", vec![item("1", "1", None)])]);
        let before = (order.clone(), lines.clone());
        let huge = "999999999999999999";
        for bad in [created("USD", vec![]), OrderEvent::ItemAdded(item(huge, "999999999999999999.999999999999", None))]
        {
            project(POLICY, &mut order, bad, Micros(9), &mut lines).unwrap_err();
            assert_eq!((&order, &lines), (&before.0, &before.1));
        }
        let mut fresh = OrderState::default();
        let items = vec![item("1", "1", None), item(huge, "999999999999999999.999999999999", None)];
        project(POLICY, &mut fresh, created("EUR", items), Micros(1), &mut lines).unwrap_err();
        assert_eq!((&fresh, &lines), (&OrderState::default(), &before.1));
    }

    #[test]
    fn updated_at_is_the_greatest_time_seen() {
        let (mut order, mut lines) = (OrderState::default(), Vec::new());
        project(POLICY, &mut order, created("EUR", vec![]), Micros(50), &mut lines).unwrap();
        project(POLICY, &mut order, OrderEvent::StatusChanged { status: "Paid".into() }, Micros(40), &mut lines)
            .unwrap();
        assert_eq!((order.updated_at, order.anomalies.names()), (Some(Micros(50)), vec!["time_went_back"]));
    }
}
