//! Things that are taken away while a pipeline runs.

mod absent;
mod careful;
mod classes;
mod data_loss;
mod kill;
mod restart;
mod steps;
mod taken_away;
mod topic;
mod two_hosts;
