//! The checking process limits itself before it reads a byte of the upload: memory, processor time, file
//! sizes, no core file, and no life after its parent's. It can lower its limits only, so nothing it runs
//! later can undo them. It never touches the process of a host.

use rustix::process::{
    Resource, Rlimit, Signal, getppid, getrlimit, nice, set_parent_process_death_signal, setrlimit,
};

use super::wire::Request;
use crate::error::{Error, Result};

/// Greatest file it may write, bytes: native code of the largest component fits several times over.
const LARGEST_FILE: u64 = 1 << 30;
/// How much it gives way to the host's own threads (`nice(2)`): records go before uploads.
const GIVES_WAY: i32 = 5;
/// Seconds between the signal that a time limit is over and the one that cannot be caught.
const GRACE: u64 = 2;

/// Limits the calling process as a request says.
///
/// # Errors
/// Outside: the system refuses a limit, or the process that asked has gone.
pub fn confine(request: &Request) -> Result<()> {
    let what = "limit the checking process";
    let refused = |error: rustix::io::Errno| Error::outside(what, error);
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused)?;
    // The signal is sent for deaths from now on; a parent that died before is told by its number.
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    if request.parent.is_some_and(|asked| asked != parent) {
        return Err(Error::outside(what, "the process that asked has gone"));
    }
    for (resource, soft, hard) in [
        (Resource::Core, 0, 0),
        // Writable memory of its own, not address space: a guest's memory reserves gigabytes of that.
        (Resource::Data, request.memory, request.memory),
        (
            Resource::Cpu,
            request.cpu_seconds,
            request.cpu_seconds + GRACE,
        ),
        (Resource::Fsize, LARGEST_FILE, LARGEST_FILE),
    ] {
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Rlimit {
            current: Some(soft.min(most)),
            maximum: Some(hard.min(most)),
        };
        setrlimit(resource, limit).map_err(refused)?;
    }
    // A system that refuses leaves the check as urgent as the host: slower neighbours, nothing else.
    nice(GIVES_WAY).ok();
    Ok(())
}
