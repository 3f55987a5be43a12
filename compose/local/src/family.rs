//! Who descends from whom, as /proc has it.
//!
//! Owns the reading of /proc. Where there is none, nobody has descendants; the servers' own habits
//! must do then. Never sends a signal.

/// One process, told from a later one with the same id by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) pid: u32,
    /// Clock ticks since the machine started.
    started: u64,
}

impl Member {
    /// Whether it has not ended; one that only waits for its parent has.
    pub(crate) fn runs(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }
}

/// All processes below `pid`, as they are now.
pub(crate) fn descendants(pid: u32) -> Vec<Member> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let all: Vec<(Member, u32)> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            let stat = stat(pid)?;
            Some((
                Member {
                    pid,
                    started: stat.started,
                },
                stat.parent,
            ))
        })
        .collect();
    let mut found: Vec<Member> = Vec::new();
    let (mut parent, mut at) = (pid, 0);
    loop {
        found.extend(
            all.iter()
                .filter(|(_, of)| *of == parent)
                .map(|(member, _)| *member),
        );
        let Some(next) = found.get(at) else {
            return found;
        };
        (parent, at) = (next.pid, at + 1);
    }
}

struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3, 4 and 22 of /proc/PID/stat (proc(5)). The name, the second, may hold anything, so the
/// fields are counted from its last parenthesis.
fn parse(text: &str) -> Option<Stat> {
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        started: fields.nth(17)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) S (b) Z 3 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        let stat = parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.started), ('Z', 3, 4711));
        assert!(parse("7 (a) S").is_none());
    }

    #[test]
    fn a_later_process_with_the_same_id_is_another() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let me = std::process::id();
        let started = stat(me).unwrap().started;
        assert!(Member { pid: me, started }.runs());
        assert!(
            !Member {
                pid: me,
                started: started + 1
            }
            .runs()
        );
    }
}
