//! What a server is set up to keep when it crashes or fails over, and what that takes away from the promise. Asked by
//! `explain`; it changes nothing.

use super::connection::{self, Session};
use super::pool::in_time;
use super::{Durability, Settings, failure};
use crate::config::PostgresConnection;
use crate::error::{Error, Result};

/// What has to hold on a server nobody could ask.
pub const NEEDED: &str =
    "fsync and full_page_writes on; a standby that takes over must have confirmed commits";

/// The settings that decide what a crash leaves, as a session of the pipeline has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// `synchronous_commit`.
    pub synchronous_commit: String,
    /// `fsync`.
    pub fsync: bool,
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// `synchronous_standby_names`: empty where no standby confirms a commit.
    pub confirming_standbys: String,
    /// Standbys that follow now.
    pub standbys: u64,
    /// Whether it is a standby itself, which takes no writes.
    pub standby: bool,
}

const ASK: &str = "SELECT pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('fsync'), \
     pg_catalog.current_setting('full_page_writes'), pg_catalog.current_setting('synchronous_standby_names'), \
     (SELECT count(*) FROM pg_catalog.pg_stat_replication), pg_catalog.pg_is_in_recovery()";

/// Asks a server, in a session like those of a pipeline's flights.
///
/// # Errors
/// `Outside` when it does not answer, `Config` when it refuses us.
pub async fn keeps(postgres: &PostgresConnection, writes_ahead: bool) -> Result<Keeps> {
    const WHAT: &str = "ask postgres what it keeps";
    let mut settings = Settings::new(postgres.url.clone(), "explain", "explain");
    if writes_ahead {
        settings.durability = Durability::Disk;
    }
    let config = connection::configure(&settings)?;
    let asking = async {
        let session = Session::open(&config, &settings).await?;
        let answer = session.client.query_one(ASK, &[]).await;
        answer.map_err(|error| failure::error(WHAT, &error))
    };
    let row = in_time(&settings, asking).await?;
    let text = |index: usize| row.try_get::<_, String>(index);
    let strange = |error: tokio_postgres::Error| Error::bug(WHAT, error);
    let standbys: i64 = row.try_get(4).map_err(strange)?;
    Ok(Keeps {
        synchronous_commit: text(0).map_err(strange)?,
        fsync: text(1).map_err(strange)? == "on",
        full_page_writes: text(2).map_err(strange)? == "on",
        confirming_standbys: text(3).map_err(strange)?,
        standbys: u64::try_from(standbys).unwrap_or(0),
        standby: row.try_get(5).map_err(strange)?,
    })
}

impl Keeps {
    /// Name and value of each setting.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let switch = |on| if on { "on" } else { "off" }.to_owned();
        let mut settings = vec![
            ("synchronous_commit", self.synchronous_commit.clone()),
            ("fsync", switch(self.fsync)),
            ("full_page_writes", switch(self.full_page_writes)),
        ];
        if self.standbys > 0 || !self.confirming_standbys.is_empty() {
            let confirming = &self.confirming_standbys;
            settings.push(("synchronous_standby_names", format!("{confirming:?}")));
            settings.push(("standbys", self.standbys.to_string()));
        }
        settings
    }

    /// What the settings take away from the promise, each with what to do; nothing where it holds as it is.
    #[must_use]
    pub fn takes_away(&self, writes_ahead: bool) -> Vec<String> {
        let mut taken = Vec::new();
        if self.standby {
            taken.push(
                "it is a standby and takes no writes: name the primary in the url".to_owned(),
            );
        }
        if !self.fsync {
            taken.push(
                "fsync = off: when its machine crashes, rows and positions may be lost or damaged, and nothing is \
                 promised; set fsync = on"
                    .to_owned(),
            );
        }
        if !self.full_page_writes {
            taken.push(
                "full_page_writes = off: a page half written when its machine crashes stays damaged, and nothing is \
                 promised; set full_page_writes = on"
                    .to_owned(),
            );
        }
        let waits = !matches!(self.synchronous_commit.as_str(), "off" | "local");
        if self.synchronous_commit == "off" {
            taken.push(
                "synchronous_commit = off: its crash may take back the last flights, rows and position together; they \
                 run again, so nothing is lost or doubled there, and a reader may have seen rows that are gone for a \
                 while; set synchronous_commit = on"
                    .to_owned(),
            );
        }
        if self.standbys > 0 && (self.confirming_standbys.is_empty() || !waits) {
            let ahead = if writes_ahead {
                ", while what was written ahead of them stays"
            } else {
                ", and runs them again"
            };
            taken.push(format!(
                "no standby confirms a commit: a failover to one that was behind takes back the last flights{ahead}; set \
                 synchronous_standby_names, with synchronous_commit = on"
            ));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Keeps {
        Keeps {
            synchronous_commit: "on".to_owned(),
            fsync: true,
            full_page_writes: true,
            confirming_standbys: String::new(),
            standbys: 0,
            standby: false,
        }
    }

    #[test]
    fn a_sound_server_takes_nothing_away_and_every_loose_one_does() {
        assert_eq!(sound().takes_away(true), Vec::<String>::new());
        let confirmed = Keeps {
            standbys: 1,
            confirming_standbys: "*".to_owned(),
            ..sound()
        };
        assert_eq!(confirmed.takes_away(true), Vec::<String>::new());
        type Loosen = fn(&mut Keeps);
        let loose: [(Loosen, &str); 6] = [
            (|keeps| keeps.fsync = false, "set fsync = on"),
            (
                |keeps| keeps.full_page_writes = false,
                "set full_page_writes = on",
            ),
            (
                |keeps| keeps.synchronous_commit = "off".to_owned(),
                "set synchronous_commit = on",
            ),
            (|keeps| keeps.standbys = 1, "set synchronous_standby_names"),
            (
                |keeps| {
                    keeps.standbys = 1;
                    keeps.confirming_standbys = "*".to_owned();
                    keeps.synchronous_commit = "local".to_owned();
                },
                "no standby confirms a commit",
            ),
            (|keeps| keeps.standby = true, "name the primary"),
        ];
        for (change, says) in loose {
            let mut keeps = sound();
            change(&mut keeps);
            let taken = keeps.takes_away(false);
            assert_eq!(taken.len(), 1, "{taken:?}");
            assert!(taken[0].contains(says), "{taken:?}");
        }
    }
}
