//! Decoding that cannot be talked into allocating: the protocol library reserves room for as many array elements as
//! a request announces, and a request may announce two thousand million in four bytes.
//!
//! [`decode`] first reads the request through a buffer on which no announced number exceeds the bytes that are left,
//! so that a lie ends as "not enough bytes"; only an honest request is then read as it is. The first reading copies
//! nothing but small fields: records stay where they are.

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::ByteBuf;

/// Decodes `body`, whose array lengths are not trusted.
///
/// # Errors
/// What does not fit the schema, as text.
pub(crate) fn decode<T: Decodable>(body: &Bytes, version: i16) -> Result<T, String> {
    let mut cautious = Cautious {
        rest: body.clone(),
        unfinished: None,
    };
    T::decode(&mut cautious, version).map_err(|error| error.to_string())?;
    T::decode(&mut body.clone(), version).map_err(|error| error.to_string())
}

/// The bytes of a request, with numbers capped to what could be true if they were lengths.
struct Cautious {
    rest: Bytes,
    /// Value and next shift of a variable-length number being read; compact arrays announce their length in one.
    unfinished: Option<(u64, u32)>,
}

impl Cautious {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TryGetError> {
        let available = self.rest.len();
        let missing = TryGetError {
            requested: N,
            available,
        };
        let taken = self.rest.first_chunk().copied().ok_or(missing)?;
        self.rest.advance(N);
        Ok(taken)
    }
}

impl Buf for Cautious {
    fn remaining(&self) -> usize {
        self.rest.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.rest.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.unfinished = None;
        self.rest.advance(count);
    }

    /// Array lengths, and all other numbers of this width: those are only capped in this first reading.
    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        self.unfinished = None;
        let value = i32::from_be_bytes(self.take()?);
        let most = i32::try_from(self.rest.len())
            .unwrap_or(i32::MAX)
            .saturating_add(1);
        Ok(value.min(most))
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let [byte] = self.take()?;
        let (before, shift) = self.unfinished.take().unwrap_or((0, 0));
        let value = before | (u64::from(byte & 0x7f) << shift);
        if byte & 0x80 != 0 && shift < 28 {
            self.unfinished = Some((value, shift + 7));
            return Ok(byte);
        }
        // Compact lengths count one more than they mean.
        let requested = usize::try_from(value).unwrap_or(usize::MAX);
        let available = self.rest.len().saturating_add(1);
        if shift > 0 && requested > available {
            return Err(TryGetError {
                requested,
                available,
            });
        }
        Ok(byte)
    }
}

impl ByteBuf for Cautious {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.rest.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.unfinished = None;
        self.rest.split_to(size)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use kafka_protocol::messages::{InitProducerIdRequest, MetadataRequest};

    use super::*;

    #[test]
    fn honest_requests_are_read_as_they_are() {
        // one topic "t"; creation allowed
        let body = Bytes::from_static(&[0, 0, 0, 1, 0, 1, b't', 1]);
        let request: MetadataRequest = decode(&body, 4).unwrap();
        assert_eq!(
            request.topics.unwrap()[0].name.as_ref().unwrap().as_str(),
            "t"
        );
        // a number larger than the request is long, that is no length
        let body = Bytes::from_static(&[0xff, 0xff, 0, 0, 0xea, 0x60]);
        let request: InitProducerIdRequest = decode(&body, 0).unwrap();
        assert_eq!(request.transaction_timeout_ms, 60_000);
    }

    #[test]
    fn announced_lengths_beyond_the_request_are_refused_before_room_is_made() {
        let plain = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 1, b't', 1]);
        assert!(decode::<MetadataRequest>(&plain, 4).is_err());
        let compact = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 2, b't', 0, 1, 0, 0, 0]);
        assert!(decode::<MetadataRequest>(&compact, 9).is_err());
        let honest = Bytes::from_static(&[2, 2, b't', 0, 1, 0, 0, 0]);
        assert!(decode::<MetadataRequest>(&honest, 9).is_ok());
    }

    #[test]
    fn no_bytes_at_all_can_harm() {
        // every request cut at every length, and with every byte at its worst
        let honest = [0, 0, 0, 1, 0, 1, b't', 1];
        for cut in 0..honest.len() {
            assert!(decode::<MetadataRequest>(&Bytes::copy_from_slice(&honest[..cut]), 4).is_err());
            for worst in [0x7f, 0x80, 0xff] {
                let mut bytes = honest;
                bytes[cut] = worst;
                for version in 0..=12 {
                    // whether it is refused depends on the place; that it returns is the point
                    drop(decode::<MetadataRequest>(
                        &Bytes::copy_from_slice(&bytes),
                        version,
                    ));
                }
            }
        }
    }
}
