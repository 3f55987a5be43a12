//! Test guest and benchmark W2: six fields in, one in five records kept, five columns out.

use wasmill_sdk::prelude::*;

#[derive(Fields)]
struct Order<'a> {
    order_id: i32,
    user: &'a str,
    status: &'a str,
    amount: f64,
    country: &'a str,
    ts: i64,
}

#[derive(Row)]
struct Paid<'a> {
    #[row(key)]
    order_id: i32,
    user: &'a str,
    cents: i64,
    country: &'a str,
    ts: i64,
}

#[plugin(inputs(orders: Order), routes(paid: Paid))]
fn filter_project(_: &Config, rec: Record<Order<'_>>, out: &mut Out) -> Result {
    if rec.status != "paid" {
        return Ok(());
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, and amounts are far below 2^63 cents"
    )]
    let cents = (rec.amount * 100.0).round() as i64;
    out.paid.write(&Paid {
        order_id: rec.order_id,
        user: rec.user,
        cents,
        country: rec.country,
        ts: rec.ts,
    })
}
