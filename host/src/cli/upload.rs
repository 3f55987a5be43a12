//! `wasmill upload`: a component to a running host, which checks and keeps it as an immutable version.

use std::fs::File;
use std::io::{BufReader, ErrorKind, IsTerminal as _, Read, Seek as _};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};

use super::client::{self, Client, UploadHead};
use super::connection::Connection;
use super::{Failure, Voice, report, show};
use crate::admin::types::Uploaded;
use crate::error::Error;

/// Longest signature file that is read, bytes; a real one has some 150.
const MAX_SIGNATURE: usize = 4096;

/// Send a plugin to a running host, which checks and keeps it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill upload quakes.wasm\n  wasmill upload quakes.wasm --host https://wasmill.example --json | jq -r .plugin\n\nNothing runs by it: `wasmill deploy NAME@VERSION` follows. Uploading the same file again changes nothing; the same version with other bytes is refused."
)]
pub(super) struct Upload {
    /// The component, as `wasmill plugin build` made it.
    file: PathBuf,
    /// Its signature; FILE.sig is taken where it exists.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl Upload {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        let signature = signature(&self.file, self.signature.as_deref())?;
        let answer = send(&client, &self.file, signature, voice)?;
        if voice.json {
            report::line(answer.text.trim_end());
            return Ok(());
        }
        for line in lines(&answer.read()?) {
            report::line(line);
        }
        Ok(())
    }
}

/// Sends a component: its digest first, then its bytes, with a bar on a terminal.
pub(super) fn send(
    client: &Client,
    path: &Path,
    signature: Option<String>,
    voice: Voice,
) -> Result<client::Answer, Failure> {
    let (mut file, size) = client::open(path)?;
    let digest = digest(&mut file)
        .map_err(|error| Error::outside(format!("read {}", path.display()), error))?;
    let head = UploadHead {
        digest,
        size,
        signature,
    };
    let bar = if voice.json || !std::io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(size)
    };
    let style = ProgressStyle::with_template("upload   [{bar:40}] {bytes}/{total_bytes} {msg}")
        .map_err(|error| Error::bug("draw progress", error))?;
    bar.set_style(style.progress_chars("=> "));
    let mut reader = Watched {
        inner: bar.wrap_read(BufReader::new(file)).take(size),
        left: size,
        bar: bar.clone(),
    };
    let answer = client.upload(&head, &mut reader, &format!("upload {}", path.display()));
    bar.finish_and_clear();
    answer
}

/// Says on the bar what is waited for once everything is sent.
struct Watched<R> {
    inner: R,
    left: u64,
    bar: ProgressBar,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(into)?;
        if count == 0 && !into.is_empty() && self.left > 0 {
            return Err(std::io::Error::new(
                ErrorKind::UnexpectedEof,
                "the file became shorter while it was sent",
            ));
        }
        self.left = self.left.saturating_sub(count as u64);
        if self.left == 0 {
            self.bar.set_message("the host compiles and checks it");
        }
        Ok(count)
    }
}

fn digest(file: &mut File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    file.rewind()?;
    let hex: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(format!("sha256:{hex}"))
}

/// The signature named, or the one beside the component; its form is the host's business.
fn signature(component: &Path, named: Option<&Path>) -> Result<Option<String>, Error> {
    let beside = {
        let mut name = component.as_os_str().to_owned();
        name.push(".sig");
        PathBuf::from(name)
    };
    let path = named.unwrap_or(&beside);
    let wrong = |detail: String| {
        Error::config(format!("read the signature {}", path.display()), detail)
            .hint("`wasmill plugin sign` writes it; remove the file to upload without a signature")
    };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is no text".to_owned()))?;
    let text = text.trim();
    if text.is_empty()
        || text.len() > MAX_SIGNATURE
        || !text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(wrong("it is not one line KEY:BASE64".to_owned()));
    }
    Ok(Some(text.to_owned()))
}

fn lines(uploaded: &Uploaded) -> Vec<String> {
    let Uploaded {
        plugin,
        digest,
        size,
        created,
        report,
    } = uploaded;
    let mut lines = vec![if *created {
        format!("uploaded {plugin}: {}, {digest}", show::size(*size))
    } else {
        format!("{plugin} is already there: {}, {digest}", show::size(*size))
    }];
    if !report.checks.is_empty() {
        lines.push(format!("  checked   {}", report.checks.join(", ")));
    }
    if report.fixtures > 0 {
        lines.push(format!(
            "  fixtures  {} ran, all with the expected rows",
            report.fixtures
        ));
    }
    if let Some(key) = &report.signed_by {
        lines.push(format!("  signed by {key}"));
    }
    if !report.asks.is_empty() {
        lines.push(format!(
            "  asks for  {} (grants = [\"…\"] in the overlay)",
            report.asks.join(", ")
        ));
    }
    for warning in &report.warnings {
        lines.push(format!("  warning   {warning}"));
    }
    lines.push(format!("next: wasmill deploy {plugin}"));
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn the_signature_beside_is_found_and_a_named_one_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let component = dir.path().join("a.wasm");
        assert_eq!(signature(&component, None).unwrap(), None);
        std::fs::write(dir.path().join("a.wasm.sig"), "ops:QUJD\n").unwrap();
        assert_eq!(
            signature(&component, None).unwrap().as_deref(),
            Some("ops:QUJD")
        );
        assert!(signature(&component, Some(&dir.path().join("b"))).is_err());
        std::fs::write(dir.path().join("b"), "two lines\nhere").unwrap();
        assert!(signature(&component, Some(&dir.path().join("b"))).is_err());
    }

    #[test]
    fn the_digest_is_of_the_bytes_and_the_file_starts_again() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"abc").unwrap();
        file.rewind().unwrap();
        let found = digest(&mut file).unwrap();
        assert_eq!(
            found,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }
}
