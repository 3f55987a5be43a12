//! Test guest: panics when it is started, unless the operator sets `calm`.
use wasmill_sdk::prelude::*;

#[derive(Fields)]
struct Marked<'a> {
    #[field(from = "key")]
    id: &'a str,
    mark: Option<&'a str>,
}

#[derive(Row)]
struct Seen<'a> {
    id: &'a str,
}

#[derive(Config)]
#[config(check = check)]
struct Temper {
    #[config(default = false)]
    calm: bool,
    #[config(default = "")]
    refuse: String,
}

/// Panics, or refuses with a text when `refuse` is set.
fn check(temper: &Temper) -> std::result::Result<(), String> {
    if !temper.refuse.is_empty() {
        return Err(temper.refuse.clone());
    }
    assert!(temper.calm, "not calm");
    Ok(())
}

#[plugin(inputs(records: Marked), routes(seen: Seen))]
fn run(_: &Temper, rec: Record<Marked<'_>>, out: &mut Out) -> Result {
    match rec.mark {
        Some(_) => Ok(()),
        None => out.seen.write(&Seen { id: rec.id }),
    }
}
