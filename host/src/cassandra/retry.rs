//! Repeating a request until it is known, refused, or the time for it is used up.
//!
//! The driver's own retries are off: it gives up at once with an empty pool and never repeats write
//! time-outs. Only idempotent requests come here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Retry};

/// First pause.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause: a restarted node is noticed within it.
const LONGEST: Duration = Duration::from_secs(2);

/// Whether the servers answer: a change is told once, however many requests wait.
#[derive(Debug, Default)]
pub(super) struct Presence {
    away: AtomicBool,
}

impl Presence {
    fn answered(&self) {
        // Read first: the line of memory is shared, and hardly ever written.
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("cassandra answers again");
        }
    }

    fn failed(&self, error: &Error) {
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "cassandra does not answer, requests are repeated until it does");
        }
    }
}

/// Repeats `attempt` while it fails with an error worth repeating, until `deadline`; the last error is
/// returned then.
pub(super) async fn until<T>(
    presence: &Presence,
    deadline: Instant,
    mut attempt: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut pause = FIRST;
    loop {
        let error = match attempt().await {
            Ok(value) => {
                presence.answered();
                return Ok(value);
            }
            Err(error) => error,
        };
        if error.retry() == Retry::Never {
            return Err(error);
        }
        presence.failed(&error);
        let now = Instant::now();
        if now >= deadline {
            return Err(error);
        }
        tokio::time::sleep(jittered(pause).min(deadline - now)).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// Half to all of `pause`, so that many waiters do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u64_pair().1 & 0xffff;
    let share = f64::from(u16::try_from(random).expect("masked to 16 bits")) / 65536.0;
    pause.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime with a timer always builds")
            .block_on(future)
    }

    #[test]
    fn repeats_what_is_outside_and_nothing_else() {
        let mut calls = 0;
        let answer = run(until(
            &Presence::default(),
            Instant::now() + Duration::from_secs(5),
            async || {
                calls += 1;
                if calls < 3 {
                    Err(Error::outside("write", "away"))
                } else {
                    Ok(calls)
                }
            },
        ));
        assert_eq!(answer, Ok(3));
        let mut calls = 0;
        let answer: Result<(), Error> = run(until(
            &Presence::default(),
            Instant::now() + Duration::from_secs(5),
            async || {
                calls += 1;
                Err(Error::config("write", "refused"))
            },
        ));
        assert!(answer.is_err());
        assert_eq!(calls, 1);
    }

    /// Counts the lines of a log.
    #[derive(Clone, Default)]
    struct Lines(Arc<AtomicUsize>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            self.0.fetch_add(lines, Ordering::Relaxed);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let lines = Lines::default();
        let (to, presence) = (lines.clone(), Presence::default());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || to.clone())
            .finish();
        let deadline = Instant::now() + Duration::from_secs(60);
        let told = || lines.0.load(Ordering::Relaxed);
        tracing::subscriber::with_default(subscriber, || {
            for round in 1..=2 {
                let mut calls = 0;
                let while_away = run(until(&presence, deadline, async || {
                    calls += 1;
                    match calls {
                        1..=3 => Err(Error::outside("write", "away")),
                        _ => Ok(told()),
                    }
                }));
                assert_eq!((while_away, told()), (Ok(2 * round - 1), 2 * round));
            }
            let refused: Result<(), Error> = run(until(&presence, deadline, async || {
                Err(Error::config("write", "refused"))
            }));
            assert!(refused.is_err());
            assert_eq!(told(), 4, "it answered");
        });
    }

    #[test]
    fn gives_up_at_the_deadline() {
        let start = Instant::now();
        let answer: Result<(), Error> = run(until(
            &Presence::default(),
            start + Duration::from_millis(120),
            async || Err(Error::outside("write", "away")),
        ));
        assert!(answer.is_err());
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(120), "{took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn pauses_spread() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(1));
            assert!(pause >= Duration::from_millis(500) && pause <= Duration::from_secs(1));
        }
    }
}
