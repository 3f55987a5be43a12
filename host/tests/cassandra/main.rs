//! The Cassandra adapter against a real Cassandra, started here.
//!
//! One server serves all cases, one after the other: a node takes seconds to start and 400 MB. Each case has
//! tables or pipelines of its own. Without Java 17 the test says so and ends.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod anchor;
mod catalog;
mod measure;
mod pin;
mod raise;
mod restart;
mod sink;
mod support;

use support::World;

#[test]
fn against_a_real_cassandra() {
    let Some(mut world) = World::start() else {
        return;
    };
    for (name, case) in [
        ("sink: every type", sink::every_type as fn(&World)),
        ("sink: the greatest time wins", sink::the_greatest_time_wins),
        (
            "sink: deletes and writes of one record",
            sink::a_write_outlives_a_delete,
        ),
        ("sink: time to live", sink::time_to_live),
        ("sink: unset and null", sink::unset_leaves_a_column),
        ("sink: batches", sink::many_rows_of_few_keys),
        ("sink: refusals", sink::refusals_name_the_record),
        ("catalog: keyspace", catalog::keyspaces),
        (
            "catalog: tables",
            catalog::a_table_that_comes_a_moment_later,
        ),
        ("catalog: tables", catalog::tables_that_differ),
        ("catalog: facts", catalog::what_the_cluster_says),
        ("anchor: seed", anchor::seeds_once),
        (
            "anchor: a torn row",
            anchor::a_row_that_is_not_whole_is_a_data_loss,
        ),
        ("anchor: duel", anchor::the_newer_claim_fences_the_older),
        ("anchor: lazy", anchor::positions_follow_lazily),
        (
            "anchor: grants",
            anchor::grants_are_stored_before_they_are_used,
        ),
        (
            "anchor: ahead fails",
            anchor::nothing_moves_when_the_data_fail,
        ),
        ("anchor: dead letters", anchor::dead_letters),
        (
            "anchor: dead letters found and removed",
            anchor::dead_letters_found_and_removed,
        ),
        (
            "raise: write times",
            raise::every_partition_writes_after_the_greatest,
        ),
        ("pin: exactly", pin::a_pin_stores_exactly_what_it_says),
        ("pin: what is held back", pin::what_is_held_back_goes_first),
        ("pin: fenced", pin::a_pin_is_checked_on_epoch_and_position),
        ("pin: late", pin::a_pin_delayed_past_a_newer_claim),
        ("pin: seeds", pin::seeds_store_cuts),
        ("pin: no cuts", pin::cuts_that_are_none),
        ("pin: older tables", pin::tables_of_an_earlier_version),
        ("anchor: handed over", pin::a_lane_handed_over_and_back),
    ] {
        eprintln!("{name}");
        case(&world);
    }
    eprintln!("restart: a stalled node");
    restart::a_change_without_an_answer(&mut world);
    eprintln!("restart: a pin at a stalled node");
    restart::a_pin_without_an_answer(&mut world);
    eprintln!("restart: a node killed under writes");
    restart::a_node_killed_under_writes(&mut world);
}

/// Client CPU a row; prints figures, and checks only that the rows arrived.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let Some(world) = World::start() else { return };
    measure::cpu_a_row(&world);
}
