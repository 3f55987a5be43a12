//! Repeating a request until it is known, refused, or the time for it is used up.
//!
//! The driver's own retries are off: it gives up at once with an empty pool and never repeats write
//! time-outs. Only idempotent requests come here.

use std::time::{Duration, Instant};

use crate::error::{Error, Retry};

/// First pause.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause: a restarted node is noticed within it.
const LONGEST: Duration = Duration::from_secs(2);

/// Repeats `attempt` while it fails with an error worth repeating, until `deadline`; the last error is
/// returned then.
pub(super) async fn until<T>(
    deadline: Instant,
    mut attempt: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut pause = FIRST;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let now = Instant::now();
        if error.retry() == Retry::Never || now >= deadline {
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
        let answer = run(until(Instant::now() + Duration::from_secs(5), async || {
            calls += 1;
            if calls < 3 {
                Err(Error::outside("write", "away"))
            } else {
                Ok(calls)
            }
        }));
        assert_eq!(answer, Ok(3));
        let mut calls = 0;
        let answer: Result<(), Error> =
            run(until(Instant::now() + Duration::from_secs(5), async || {
                calls += 1;
                Err(Error::config("write", "refused"))
            }));
        assert!(answer.is_err());
        assert_eq!(calls, 1);
    }

    #[test]
    fn gives_up_at_the_deadline() {
        let start = Instant::now();
        let answer: Result<(), Error> =
            run(until(start + Duration::from_millis(120), async || {
                Err(Error::outside("write", "away"))
            }));
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
