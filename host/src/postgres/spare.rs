//! [`Spare`]: buffers of earlier flights, for reuse; no more of them than the last flights had a use for.

/// What so many flights wrote together is kept: as many may be on their way at once.
const LAST: usize = 64;

/// Most that is kept, however large they were: a pipeline that rests keeps it for ever.
const MOST: usize = 16 << 20;

/// Buffers that no flight uses now.
#[derive(Debug, Default)]
pub(super) struct Spare {
    buffers: Vec<Vec<u8>>,
    /// Bytes that the last flights wrote, earlier ones counting less and less.
    wrote: usize,
}

impl Spare {
    /// An empty buffer, with the capacity that an earlier flight gave it.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Takes back the buffers of a flight, as it wrote them and in the order in which it took them.
    pub(super) fn give(&mut self, flight: impl Iterator<Item = Vec<u8>>) {
        let start = self.buffers.len();
        self.buffers.extend(flight);
        let written: usize = self.buffers[start..].iter().map(Vec::len).sum();
        // The last one taken is on top: a column gets its own again.
        self.buffers[start..].reverse();
        self.wrote = self.wrote - self.wrote / LAST + written;
        let mut held: usize = self.buffers.iter().map(Vec::capacity).sum();
        while held > self.wrote.min(MOST) {
            let sizes = self.buffers.iter().map(Vec::capacity).enumerate();
            let (largest, bytes) = sizes
                .max_by_key(|(_, bytes)| *bytes)
                .expect("no buffers hold nothing");
            self.buffers.swap_remove(largest);
            held -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flights that fly one after another: so many columns of so many bytes. What is kept then.
    fn fly(spare: &mut Spare, flights: usize, columns: usize, bytes: usize) -> usize {
        for _ in 0..flights {
            let mut taken: Vec<Vec<u8>> = (0..columns).map(|_| spare.take()).collect();
            for buffer in &mut taken {
                assert!(buffer.is_empty());
                buffer.resize(bytes, 0);
            }
            spare.give(taken.into_iter());
        }
        spare.buffers.iter().map(Vec::capacity).sum()
    }

    #[test]
    fn one_giant_flight_is_forgotten() {
        let mut spare = Spare::default();
        fly(&mut spare, 10, 5, 100);
        let giant = fly(&mut spare, 1, 5, 1 << 20);
        assert!(giant >= 4 << 20, "{giant}: the next may be as large");
        let later = fly(&mut spare, 1000, 5, 100);
        assert!(later <= LAST * 5 * 100, "{later} bytes are kept");
    }

    #[test]
    fn what_rests_is_bounded() {
        let rests = fly(&mut Spare::default(), 3, 40, 1 << 20);
        assert!((MOST / 2..=MOST).contains(&rests), "{rests} bytes are kept");
    }

    #[test]
    fn flights_of_a_kind_get_their_buffers_again() {
        let mut spare = Spare::default();
        let fly = |spare: &mut Spare| {
            let columns = [100_000, 8, 8, 8, 8];
            let mut lanes: Vec<Vec<Vec<u8>>> = Vec::new();
            for _ in 0..8 {
                lanes.push(columns.iter().map(|_| spare.take()).collect());
            }
            let mut places = Vec::new();
            for lane in &mut lanes {
                for (buffer, bytes) in lane.iter_mut().zip(columns) {
                    let enough = buffer.capacity() >= bytes;
                    buffer.resize(bytes, 0);
                    places.push(enough);
                }
            }
            for lane in lanes {
                spare.give(lane.into_iter());
            }
            places
        };
        for _ in 0..20 {
            fly(&mut spare);
        }
        for _ in 0..100 {
            assert!(fly(&mut spare).into_iter().all(|enough| enough));
        }
    }
}
