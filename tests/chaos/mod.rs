//! Things that are taken away while a pipeline runs.

mod absent;
mod acl;
mod careful;
mod classes;
mod data_loss;
mod early;
mod ended_twice;
mod flights;
mod kill;
mod late_write;
mod links;
mod lost_positions;
mod lost_topics;
mod permissions;
mod restart;
mod ring;
mod same_host_id;
mod servers_killed;
mod slow_link;
mod status;
mod steps;
mod taken_away;
mod topic;
mod transactions;
mod two_hosts;
mod waiting;
