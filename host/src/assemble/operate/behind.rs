//! Why a host does not run the revision of a pipeline that is in force. Pure.

use crate::assemble::seen::Seen;
use crate::control::Newer;

/// The reason, for a person; `None` where the host is as far as it can know. `revision` is the one in force as the
/// control log says, `newer` what it holds about the pipeline that this host cannot read, `seen` what runs here.
pub(super) fn reason(revision: u64, newer: Option<&Newer>, seen: Option<&Seen>) -> Option<String> {
    let seen = seen?;
    let runs = match seen.revision {
        0 => "none".to_owned(),
        revision => revision.to_string(),
    };
    if newer.is_some_and(|newer| newer.frozen) {
        return Some(format!(
            "a newer host has deployed what this one cannot read, this host runs revision {runs}: upgrade this host"
        ));
    }
    if seen.revision == revision {
        return None;
    }
    let why = match &seen.tried {
        Some((tried, error)) if *tried == revision => match error.hint_text() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        },
        _ => "it is being loaded".to_owned(),
    };
    Some(format!(
        "revision {revision} is in force, this host runs {runs}: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::PipelineState;
    use crate::error::Error;

    fn seen(revision: u64, tried: Option<(u64, Error)>) -> Seen {
        Seen {
            state: PipelineState::Running,
            revision,
            tried,
            ..Seen::new()
        }
    }

    #[test]
    fn a_host_that_is_behind_says_by_how_much_and_why() {
        let error = || Error::config("reach table \"t\"", "no such table").hint("create it");
        let why = |seen: &Seen| reason(7, None, Some(seen));
        assert_eq!(why(&seen(7, None)), None);
        assert_eq!(
            why(&seen(7, Some((7, error())))),
            None,
            "a failure of what runs"
        );
        assert_eq!(
            why(&seen(6, Some((7, error())))).as_deref(),
            Some(
                "revision 7 is in force, this host runs 6: reach table \"t\": no such table; create it"
            )
        );
        // What failed before is no reason any more.
        assert_eq!(
            why(&seen(0, Some((6, error())))).as_deref(),
            Some("revision 7 is in force, this host runs none: it is being loaded")
        );
        assert_eq!(reason(7, None, None), None, "it starts: its state says so");
    }

    #[test]
    fn a_host_that_cannot_read_what_is_in_force_says_what_to_do() {
        let mut newer = Newer {
            entries: 1,
            first: 40,
            frozen: true,
            revision: 7,
        };
        let said = reason(6, Some(&newer), Some(&seen(6, None)));
        let said = said.expect("it is behind what it cannot read");
        assert!(
            said.contains("runs revision 6") && said.contains("upgrade this host"),
            "{said}"
        );
        newer.frozen = false;
        assert_eq!(
            reason(6, Some(&newer), Some(&seen(6, None))),
            None,
            "numbers only"
        );
    }
}
