//! Things that are taken away while a pipeline runs.

mod absent;
mod data_loss;
mod kill;
mod late_write;
mod links;
mod ring;
mod servers_killed;
mod slow_link;
mod taken_away;
mod topic;
mod two_hosts;
