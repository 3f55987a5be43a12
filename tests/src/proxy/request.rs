//! Where a request begins and ends in the bytes that a client sends, for the protocols of our servers.
//!
//! It owns the bytes not yet handed on. It never changes them: what comes out, put together, is what went in.

use std::collections::HashMap;

/// The start-up messages of Postgres that another one follows: SSLRequest and GSSENCRequest (its manual, "Message
/// Formats").
const ASKS_FOR_ENCRYPTION: [i32; 2] = [80_877_103, 80_877_104];

/// Header of a CQL frame up to version 4 (native_protocol_v4.spec, section 2).
const CQL_HEADER: usize = 9;

/// What is spoken on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Whatever: a request is what one read brings.
    Raw,
    /// Postgres, version 3.
    Postgres,
    /// Kafka.
    Kafka,
    /// CQL, up to version 4.
    Cassandra,
}

/// One request, whole.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// All its bytes, with the header.
    pub bytes: &'a [u8],
    /// Postgres: the text of the prepared statement that a `Bind` runs.
    pub statement: Option<&'a str>,
    protocol: Protocol,
}

impl Request<'_> {
    /// Whether these bytes occur in it, or in the text of the prepared statement that it runs.
    pub fn contains(&self, wanted: &[u8]) -> bool {
        let within = |bytes: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
        within(self.bytes) || self.statement.is_some_and(|text| within(text.as_bytes()))
    }

    /// Kafka: the API key, such as 26 for EndTxn.
    pub fn api_key(&self) -> Option<i16> {
        match self.protocol {
            Protocol::Kafka => Some(i16::from_be_bytes([
                *self.bytes.get(4)?,
                *self.bytes.get(5)?,
            ])),
            _ => None,
        }
    }

    /// CQL: the opcode, such as 7 QUERY, 10 EXECUTE, 13 BATCH.
    pub fn opcode(&self) -> Option<u8> {
        match self.protocol {
            Protocol::Cassandra => self.bytes.get(4).copied(),
            _ => None,
        }
    }
}

/// Cuts a stream into requests.
#[derive(Debug)]
pub(super) struct Cutter {
    protocol: Protocol,
    bytes: Vec<u8>,
    /// Postgres: past the start-up messages, which have no type.
    started: bool,
    /// Postgres: text of the prepared statements by name.
    statements: HashMap<Vec<u8>, String>,
}

impl Cutter {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            bytes: Vec::new(),
            started: false,
            statements: HashMap::new(),
        }
    }

    /// Takes what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole request, and what `look` says of it.
    pub(super) fn next<T>(&mut self, look: impl FnOnce(&Request<'_>) -> T) -> Option<(Vec<u8>, T)> {
        let length = self.length()?;
        if length > self.bytes.len() {
            return None;
        }
        let rest = self.bytes.split_off(length);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        let bound = self.note(&bytes);
        let request = Request {
            bytes: &bytes,
            statement: bound
                .and_then(|name| self.statements.get(name))
                .map(String::as_str),
            protocol: self.protocol,
        };
        let seen = look(&request);
        Some((bytes, seen))
    }

    /// What is left when the client has closed: part of a request.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Length of the request the bytes begin with, once it can be told. A length that makes no sense takes all there is.
    fn length(&self) -> Option<usize> {
        let all = (!self.bytes.is_empty()).then_some(self.bytes.len());
        let (at, more) = match self.protocol {
            Protocol::Raw => return all,
            Protocol::Kafka => (0, 4),
            Protocol::Postgres if self.started => (1, 1),
            Protocol::Postgres => (0, 0),
            Protocol::Cassandra => (CQL_HEADER - 4, CQL_HEADER),
        };
        let said = self.number(at)?;
        let least = if self.protocol == Protocol::Postgres {
            4
        } else {
            0
        };
        match usize::try_from(said) {
            Ok(said) if said >= least => Some(said + more),
            _ => all,
        }
    }

    fn number(&self, at: usize) -> Option<i32> {
        let bytes = self.bytes.get(at..at + 4)?;
        Some(i32::from_be_bytes(bytes.try_into().unwrap()))
    }

    /// Follows the Postgres conversation; the name of the statement that a `Bind` runs.
    fn note<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        if self.protocol != Protocol::Postgres {
            return None;
        }
        if !self.started {
            let code = bytes
                .get(4..8)
                .map(|code| i32::from_be_bytes(code.try_into().unwrap()));
            self.started = !code.is_some_and(|code| ASKS_FOR_ENCRYPTION.contains(&code));
            return None;
        }
        let mut strings = bytes.get(5..)?.split(|byte| *byte == 0);
        match bytes[0] {
            b'P' => {
                let (name, text) = (strings.next()?, strings.next()?);
                let text = String::from_utf8_lossy(text).into_owned();
                self.statements.insert(name.to_vec(), text);
                None
            }
            b'B' => strings.nth(1), // after the portal's name
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(i32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Feeds a stream in pieces of every size and gives what came out.
    fn cut(protocol: Protocol, stream: &[u8], piece: usize) -> Vec<(Vec<u8>, bool)> {
        let mut cutter = Cutter::new(protocol);
        let mut out = Vec::new();
        for part in stream.chunks(piece) {
            cutter.push(part);
            while let Some(request) = cutter.next(|request| {
                request.contains(b"COMMIT")
                    || request.api_key() == Some(26)
                    || request.opcode() == Some(10)
            }) {
                out.push(request);
            }
        }
        assert_eq!(cutter.rest(), [0_u8; 0]);
        out
    }

    #[test]
    fn postgres_requests_are_found_whatever_the_pieces() {
        let mut ssl = 8_i32.to_be_bytes().to_vec();
        ssl.extend(ASKS_FOR_ENCRYPTION[0].to_be_bytes());
        let mut start = 12_i32.to_be_bytes().to_vec();
        start.extend([0, 3, 0, 0, b'u', b'u', b'u', 0]);
        let requests = [
            (ssl, false),
            (start, false),
            (postgres(b'P', b"s1\0COMMIT AND CHAIN\0\0\0"), true),
            (postgres(b'P', b"s2\0SELECT 1\0\0\0"), false),
            (postgres(b'B', b"\0s2\0\0\0"), false),
            (postgres(b'B', b"\0s1\0\0\0"), true),
            (postgres(b'S', b""), false),
            (postgres(b'Q', b"COMMIT\0"), true),
        ];
        let stream: Vec<u8> = requests
            .iter()
            .flat_map(|(bytes, _)| bytes.clone())
            .collect();
        for piece in 1..=stream.len() {
            assert_eq!(cut(Protocol::Postgres, &stream, piece), requests);
        }
    }

    #[test]
    fn kafka_and_cassandra_requests_are_found_whatever_the_pieces() {
        let kafka = [
            (vec![0, 0, 0, 4, 0, 3, 0, 1], false),
            (vec![0, 0, 0, 5, 0, 26, 0, 1, 9], true),
        ];
        let cassandra = [
            (vec![4, 0, 0, 1, 7, 0, 0, 0, 2, 1, 2], false),
            (vec![4, 0, 0, 1, 10, 0, 0, 0, 0], true),
        ];
        for (protocol, requests) in [(Protocol::Kafka, kafka), (Protocol::Cassandra, cassandra)] {
            let stream: Vec<u8> = requests
                .iter()
                .flat_map(|(bytes, _)| bytes.clone())
                .collect();
            for piece in 1..=stream.len() {
                assert_eq!(cut(protocol, &stream, piece), requests);
            }
        }
    }

    #[test]
    fn a_length_that_makes_no_sense_holds_nothing_back() {
        let mut cutter = Cutter::new(Protocol::Kafka);
        cutter.push(&[255, 255, 255, 255, 1, 2]);
        assert_eq!(
            cutter.next(|_| false),
            Some((vec![255, 255, 255, 255, 1, 2], false))
        );
    }
}
