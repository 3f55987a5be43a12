//! As whom Postgres runs: it refuses the superuser.
//!
//! Owns the choice of another user where this process is root. Never creates a user.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use crate::{error::Missing, process::effective_user};

/// Who runs a server and owns its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// The user of this process.
    Same,
    /// Another one: this process is root and the server refuses that.
    Other { user: u32, group: u32 },
}

impl User {
    /// This user, unless that is root: then `postgres`, else `nobody`.
    pub(crate) fn not_root() -> Result<User, Missing> {
        if effective_user() != 0 {
            return Ok(User::Same);
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| find(&accounts, name))
            .ok_or_else(|| Missing {
                server: "Postgres".into(),
                what:
                    "it refuses to run as root, and /etc/passwd has neither `postgres` nor `nobody`"
                        .into(),
                hint: "run as an ordinary user, or `useradd --system postgres`".into(),
            })
    }

    /// Makes `command` run as this user.
    pub(crate) fn run(self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        if let User::Other { user, group } = self {
            command.uid(user).gid(group);
        }
    }

    /// Gives `path` to this user.
    pub(crate) fn give(self, path: &Path) -> io::Result<()> {
        match self {
            User::Same => Ok(()),
            User::Other { user, group } => chown(path, Some(user), Some(group)),
        }
    }

    /// Makes the folder `path` for this user alone.
    pub(crate) fn create_dir(self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        self.give(path)
    }
}

fn find(accounts: &str, name: &str) -> Option<User> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        Some(User::Other { user, group })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let accounts = "root:x:0:0::/:/bin/sh\npostgresql:x:7:7::/:\npostgres:x:101:104:admin,,,:/var:/bin/sh\n";
        assert_eq!(
            find(accounts, "postgres"),
            Some(User::Other {
                user: 101,
                group: 104
            })
        );
        assert_eq!(find(accounts, "nobody"), None);
        assert_eq!(find("nobody:*:-2:-2::/:", "nobody"), None);
    }
}
