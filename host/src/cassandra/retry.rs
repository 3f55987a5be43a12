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
    /// They answered; whether that is news.
    fn is_back(&self) -> bool {
        // Read first: the line of memory is shared, and hardly ever written.
        self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed)
    }

    /// They did not; whether that is news.
    fn is_gone(&self) -> bool {
        !self.away.swap(true, Ordering::Relaxed)
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
                if presence.is_back() {
                    tracing::info!("cassandra answers again");
                }
                return Ok(value);
            }
            Err(error) => error,
        };
        if error.retry() == Retry::Never {
            return Err(error);
        }
        if presence.is_gone() {
            tracing::warn!(%error, "cassandra does not answer, requests are repeated until it does");
        }
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

    #[test]
    fn a_change_is_told_once() {
        let presence = Presence::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        assert!(!presence.is_back(), "it never was away");
        for _ in 0..2 {
            let mut calls = 0;
            let answer = run(until(&presence, deadline, async || {
                calls += 1;
                match calls {
                    1..=2 => Err(Error::outside("write", "away")),
                    _ => Ok(presence.is_gone()),
                }
            }));
            assert_eq!(answer, Ok(false), "that it is gone was told");
            assert!(!presence.is_back(), "that it is back was told");
        }
        let refused: Result<(), Error> = run(until(&presence, deadline, async || {
            Err(Error::config("write", "refused"))
        }));
        assert!(refused.is_err());
        assert!(!presence.is_back(), "it answered");
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
