//! Things that are taken away while a pipeline runs.

mod absent;
mod data_loss;
mod kill;
mod taken_away;
mod topic;
mod transactions;
mod two_hosts;
