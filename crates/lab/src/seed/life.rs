//! What happens to an order of a small shop, from the first line to the doorstep. No I/O, no clock.

use fastrand::Rng;

/// One thing that happens to an order.
pub(super) enum Happening {
    /// The order is placed.
    Created {
        /// Number of the customer.
        customer: u32,
        /// ISO 4217.
        currency: &'static str,
        /// At least one.
        items: Vec<Item>,
    },
    /// Another line.
    ItemAdded(Item),
    /// A new status.
    StatusChanged(&'static str),
}

/// A line of an order, amounts as decimal text.
pub(super) struct Item {
    /// From 1, within the order.
    pub number: usize,
    /// Article of the catalogue.
    pub sku: &'static str,
    /// Pieces, or kilograms with three digits.
    pub qty: String,
    /// Of one, in the order's currency.
    pub price: String,
    /// Share added to the net price.
    pub tax_rate: Option<&'static str>,
}

const CUSTOMERS: f64 = 500.0;

/// Code, price of 100 euro cents in minor units, digits of the minor unit.
const CURRENCIES: [(&str, u64, usize); 4] = [("EUR", 100, 2), ("USD", 108, 2), ("JPY", 163, 0), ("PLN", 426, 2)];

/// Article and price in euro cents. What ends in `-KG` is sold by weight.
const CATALOGUE: [(&str, u64); 40] = [
    ("MUG-BLUE", 1250),
    ("MUG-WHITE", 1150),
    ("MUG-TRAVEL", 2490),
    ("CUP-ESPRESSO", 890),
    ("TEAPOT-GLASS", 3490),
    ("TEAPOT-IRON", 5900),
    ("KETTLE-GOOSENECK", 7990),
    ("GRINDER-HAND", 6450),
    ("GRINDER-ELECTRIC", 18900),
    ("FILTER-PAPER-100", 590),
    ("FILTER-METAL", 2190),
    ("DRIPPER-V60", 2350),
    ("PRESS-350ML", 2990),
    ("PRESS-1L", 3990),
    ("SCALE-POCKET", 3290),
    ("TIMER-KITCHEN", 1490),
    ("SPOON-MEASURE", 690),
    ("TRAY-OAK", 4200),
    ("TIN-500G", 1190),
    ("TIN-1KG", 1590),
    ("COFFEE-BRAZIL-KG", 2690),
    ("COFFEE-COLOMBIA-KG", 2990),
    ("COFFEE-ETHIOPIA-KG", 3490),
    ("COFFEE-KENYA-KG", 3690),
    ("COFFEE-DECAF-KG", 3190),
    ("TEA-ASSAM-KG", 5400),
    ("TEA-DARJEELING-KG", 8800),
    ("TEA-EARL-GREY-KG", 6200),
    ("TEA-OOLONG-KG", 11900),
    ("TEA-SENCHA-KG", 9600),
    ("TEA-ROOIBOS-KG", 3900),
    ("COCOA-DARK-KG", 2490),
    ("SUGAR-CANE-KG", 450),
    ("HONEY-500G", 1290),
    ("BISCUIT-ALMOND", 790),
    ("BISCUIT-BUTTER", 590),
    ("CHOCOLATE-70", 420),
    ("SYRUP-VANILLA", 990),
    ("GIFT-WRAP", 300),
    ("GIFT-CARD-25", 2500),
];

const TAX_RATES: [Option<&str>; 4] = [Some("0.19"), Some("0.07"), None, None];

/// The whole life of one order, in order. Starts with `Created`; most end `Delivered`, some
/// `Cancelled`, a few are still waiting for their payment.
pub(super) fn live(rng: &mut Rng) -> Vec<Happening> {
    // The cube makes the first customers regulars.
    let customer = (rng.f64().powi(3) * CUSTOMERS) as u32 + 1;
    let currency = CURRENCIES[[0, 0, 0, 0, 0, 1, 1, 2, 3, 3][rng.usize(..10)]];
    let placed = rng.usize(1..=4);
    let items = (1..=placed).map(|number| item(number, currency, rng)).collect();
    let mut life = vec![Happening::Created { customer, currency: currency.0, items }];

    let added = if rng.f64() < 0.3 { rng.usize(1..=2) } else { 0 };
    for number in placed + 1..=placed + added {
        life.push(Happening::ItemAdded(item(number, currency, rng)));
    }
    for status in ["Paid", "Packed", "Shipped", "Delivered"] {
        if status != "Delivered" && rng.f64() < 0.04 {
            life.push(Happening::StatusChanged("Cancelled"));
            break;
        }
        if status == "Paid" && rng.f64() < 0.03 {
            break;
        }
        life.push(Happening::StatusChanged(status));
    }
    life
}

fn item(number: usize, (_, rate, digits): (&str, u64, usize), rng: &mut Rng) -> Item {
    let (sku, cents) = CATALOGUE[rng.usize(..CATALOGUE.len())];
    let qty = if sku.ends_with("-KG") { decimal(rng.u64(1..=8) * 125, 3) } else { rng.u64(1..=5).to_string() };
    let tax_rate = TAX_RATES[rng.usize(..TAX_RATES.len())];
    Item { number, sku, qty, price: decimal(cents * rate / 100, digits), tax_rate }
}

/// `1250` with two digits is `12.50`.
fn decimal(minor: u64, digits: usize) -> String {
    if digits == 0 {
        return minor.to_string();
    }
    let unit = 10_u64.pow(digits as u32);
    format!("{}.{:0digits$}", minor / unit, minor % unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_zeros() {
        assert_eq!(decimal(1250, 2), "12.50");
        assert_eq!(decimal(5, 3), "0.005");
        assert_eq!(decimal(407, 0), "407");
    }
}
