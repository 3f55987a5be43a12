//! `wasmill token`: makes tokens of the HTTP API. The token is shown once and kept nowhere; the config gets its hash.

use super::{Failure, Voice, report};
use crate::admin;
use crate::config::Role;
use crate::error::Error;

/// Tokens of the HTTP API.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Token {
    /// Make a token: it is shown once, with the line for the host's config.
    New(New),
}

/// Make a token.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill token new --name ci --role deploy\n  wasmill token new --name dashboard --role read --json | jq -r .token\n\nThe holder sends it as `Authorization: Bearer TOKEN`. The host knows it after a restart with the line in [http]."
)]
pub(super) struct New {
    /// Whose it is, as the audit trail names it.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What its holder may do: read (also the bytes of dead letters), operate (also pause, resume, roll back, retry and
    /// drop dead letters) or deploy (everything).
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,
}

fn role(word: &str) -> Result<Role, String> {
    let known = Role::ALL.iter().find(|(known, _)| *known == word);
    let role = known.map(|(_, role)| *role);
    role.ok_or_else(|| "read, operate or deploy".to_owned())
}

impl Token {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        match self {
            Self::New(new) => new.execute(voice),
        }
    }
}

impl New {
    fn execute(self, voice: Voice) -> Result<(), Failure> {
        let Self { name, role } = self;
        if !admin::is_token_name(&name) {
            return Err(
                Error::config("make a token", format!("the name {name:?} is not allowed"))
                    .hint("a letter a–z, then at most 62 of a–z, 0–9, '_' and '-'")
                    .into(),
            );
        }
        let token = admin::new_token()?;
        let hash = admin::hash_token(&token);
        if voice.json {
            report::json(&serde_json::json!({
                "token": token, "name": name, "role": role.to_string(), "hash": hash.to_string(),
            }));
            return Ok(());
        }
        report::line(&token);
        eprintln!("\nThe token is shown this once. For the host's config, in [http]:\n");
        eprintln!("tokens = [{{ name = \"{name}\", role = \"{role}\", hash = \"{hash}\" }}]");
        Ok(())
    }
}
