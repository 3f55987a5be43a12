//! Requests no client library sends: each ends its own connection or is refused, and the broker serves on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use wasmill_devbroker::Broker;

use crate::clients::{PATIENCE, broker_with, producer, send, settle};

fn connect(broker: &Broker) -> TcpStream {
    let stream = TcpStream::connect(broker.bootstrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Length and header of a request, then the body.
fn framed(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7_i32.to_be_bytes());
    frame.extend((-1_i16).to_be_bytes());
    frame.extend(body);
    let mut whole = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
    whole.extend(frame);
    whole
}

/// Whether the broker closes the connection after these bytes, without a word.
fn closes(broker: &Broker, bytes: &[u8]) -> bool {
    let mut stream = connect(broker);
    stream.write_all(bytes).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn what_is_not_a_request_closes_the_connection_only() {
    let broker = broker_with("t", 1);
    let metadata = framed(3, 1, &1_i32.to_be_bytes());
    let cases: [(&str, Vec<u8>); 10] = [
        (
            "a web browser",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        ("a negative length", (-5_i32).to_be_bytes().to_vec()),
        ("an empty frame", 0_i32.to_be_bytes().to_vec()),
        ("an unknown request", framed(999, 0, &[])),
        ("a request of brokers among themselves", framed(4, 0, &[])),
        ("a version never advertised", framed(0, 99, &[])),
        ("a body that ends early", metadata),
        (
            "an array as long as the world",
            framed(3, 1, &i32::MAX.to_be_bytes()),
        ),
        (
            "a compact array as long as the world",
            framed(3, 9, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        ),
        (
            "a negative array length",
            framed(3, 1, &(-7_i32).to_be_bytes()),
        ),
    ];
    for (what, bytes) in cases {
        assert!(closes(&broker, &bytes), "{what}");
    }
    let producer = producer(&broker, &[]);
    send(&producer, "t", 0, 0..1);
    settle(&producer);
    assert_eq!(broker.log_end("t", 0), Some(1));
}

#[test]
fn half_a_request_waits_and_a_whole_one_is_answered() {
    let broker = broker_with("t", 1);
    let request = framed(18, 0, &[]);
    let mut stream = connect(&broker);
    let (first, rest) = request.split_at(6);
    stream.write_all(first).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(stream.read(&mut [0; 1]).is_err());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(rest).unwrap();
    let answer = answer(&mut stream);
    assert_eq!(answer[..6], [0, 0, 0, 7, 0, 0]);
}

#[test]
fn a_client_from_the_future_is_told_the_versions() {
    let broker = broker_with("t", 1);
    let mut stream = connect(&broker);
    // flexible header: no tagged fields
    stream.write_all(&framed(18, 4, &[0, 0])).unwrap();
    let answer = answer(&mut stream);
    assert_eq!(answer[..6], [0, 0, 0, 7, 0, 35]);
    assert!(answer.len() > 100);
}

#[test]
fn a_batch_damaged_on_the_way_is_refused() {
    let broker = broker_with("t", 1);
    let mut batch = vec![0_u8; 61];
    batch[8..12].copy_from_slice(&49_i32.to_be_bytes());
    batch[16] = 2;
    let mut body = Vec::new();
    body.extend((-1_i16).to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    body.extend(1_000_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    body.extend(b"t");
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend(61_i32.to_be_bytes());
    body.extend(&batch);
    let mut stream = connect(&broker);
    stream.write_all(&framed(0, 3, &body)).unwrap();
    let answer = answer(&mut stream);
    // correlation, 1 topic, "t", 1 partition, index 0, then the error code: corrupt message
    assert_eq!(answer[4 + 4 + 3 + 4 + 4..][..2], 2_i16.to_be_bytes());
    assert_eq!(broker.log_end("t", 0), Some(0));
}
