//! The proxy between a client of ours and a server that repeats what it hears.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);
const A_WHILE: Duration = Duration::from_millis(150);

/// A server that answers with what it got; what it got arrives at the receiver too, `END` when the client closes.
async fn echo() -> (SocketAddr, UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, heard) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let mut piece = vec![0; 1 << 16];
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    told.send(piece[..read].to_vec()).ok();
                    if stream.write_all(&piece[..read]).await.is_err() {
                        return;
                    }
                }
                told.send(b"END".to_vec()).ok();
            });
        }
    });
    (address, heard)
}

/// Reads that many bytes.
async fn reads(stream: &mut TcpStream, many: usize) -> Vec<u8> {
    let mut bytes = vec![0; many];
    let read = timeout(SOON, stream.read_exact(&mut bytes)).await;
    read.expect("in time").expect("not closed");
    bytes
}

/// Whether the other side closes it, whatever comes before.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut piece = [0; 64];
    let closed = async { while let Ok(1..) = stream.read(&mut piece).await {} };
    timeout(SOON, closed).await.is_ok()
}

/// Whether nothing comes for a while.
async fn is_silent(stream: &mut TcpStream) -> bool {
    let mut piece = [0; 64];
    timeout(A_WHILE, stream.read(&mut piece)).await.is_err()
}

async fn says(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    String::from_utf8(reads(stream, text.len()).await).unwrap()
}

async fn hears(heard: &mut UnboundedReceiver<Vec<u8>>) -> String {
    let got = timeout(SOON, heard.recv()).await.expect("in time").unwrap();
    String::from_utf8(got).unwrap()
}

async fn linked() -> (Proxy, UnboundedReceiver<Vec<u8>>) {
    let (server, heard) = echo().await;
    (Proxy::to(Protocol::Raw, server), heard)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

#[tokio::test]
async fn a_good_link_passes_everything_and_the_end() {
    let (proxy, mut heard) = linked().await;
    let mut client = connect(&proxy).await;
    assert_eq!(says(&mut client, "hello").await, "hello");
    assert_eq!(hears(&mut heard).await, "hello");
    client.shutdown().await.unwrap();
    assert_eq!(hears(&mut heard).await, "END");
    assert!(is_closed(&mut client).await);
    let wanted = Counts {
        accepted: 1,
        requests: 5,
        replies: 5,
        ..Counts::default()
    };
    assert_eq!(proxy.counts(), wanted);
}

#[tokio::test]
async fn megabytes_arrive_whole_in_both_directions() {
    let (proxy, _heard) = linked().await;
    proxy.set(Link::delayed(Duration::from_millis(5)));
    let (mut from, mut to) = connect(&proxy).await.into_split();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let bytes = sent.clone();
    let sending = tokio::spawn(async move { to.write_all(&bytes).await.map(|()| to) });
    let mut got = vec![0; sent.len()];
    timeout(SOON, from.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert!(got == sent, "bytes changed on their way");
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_half_open_link_loses_replies_only() {
    let (proxy, mut heard) = linked().await;
    let mut client = connect(&proxy).await;
    assert_eq!(says(&mut client, "before").await, "before");
    assert_eq!(hears(&mut heard).await, "before");
    proxy.set(Link::half_open());
    client.write_all(b"lost").await.unwrap();
    assert_eq!(hears(&mut heard).await, "lost");
    assert!(is_silent(&mut client).await);
    // A connection that lost bytes never speaks again, a new one does.
    proxy.set(Link::default());
    client.write_all(b"still").await.unwrap();
    assert_eq!(hears(&mut heard).await, "still");
    assert!(is_silent(&mut client).await);
    assert_eq!(says(&mut connect(&proxy).await, "new").await, "new");
    proxy.heal();
    assert!(is_closed(&mut client).await);
    let counts = proxy.counts();
    assert_eq!(
        (counts.replies_swallowed, counts.requests_swallowed),
        (9, 0)
    );
    assert_eq!(counts.closed, 1);
}

#[tokio::test]
async fn a_black_hole_takes_everything_and_says_nothing() {
    let (proxy, mut heard) = linked().await;
    let mut old = connect(&proxy).await;
    assert_eq!(says(&mut old, "a").await, "a");
    assert_eq!(hears(&mut heard).await, "a");
    proxy.set(Link::black_hole());
    let mut new = connect(&proxy).await;
    old.write_all(b"12").await.unwrap();
    new.write_all(b"345").await.unwrap();
    assert!(is_silent(&mut old).await && is_silent(&mut new).await);
    // Not even that the client has gone arrives.
    old.shutdown().await.unwrap();
    assert!(timeout(A_WHILE, heard.recv()).await.is_err());
    assert_eq!(proxy.counts().requests_swallowed, 5);
    proxy.heal();
    assert_eq!(hears(&mut heard).await, "END");
    assert!(is_closed(&mut new).await);
}

#[tokio::test]
async fn a_stalled_link_loses_nothing() {
    let (proxy, mut heard) = linked().await;
    let mut client = connect(&proxy).await;
    assert_eq!(says(&mut client, "a").await, "a");
    assert_eq!(hears(&mut heard).await, "a");
    proxy.set(Link::stalled());
    client.write_all(b"later").await.unwrap();
    assert!(timeout(A_WHILE, heard.recv()).await.is_err());
    proxy.heal();
    assert_eq!(hears(&mut heard).await, "later");
    assert_eq!(reads(&mut client, 5).await, b"later");
    assert_eq!(proxy.counts().stalled, 1);
    assert_eq!(proxy.counts().closed, 0);
}

#[tokio::test]
async fn connections_are_closed_and_refused() {
    let (proxy, _heard) = linked().await;
    let mut client = connect(&proxy).await;
    assert_eq!(says(&mut client, "a").await, "a");
    proxy.set(Link {
        accept: false,
        ..Link::default()
    });
    proxy.close_all();
    assert!(is_closed(&mut client).await);
    assert!(is_closed(&mut connect(&proxy).await).await);
    proxy.heal();
    assert_eq!(says(&mut connect(&proxy).await, "b").await, "b");
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.refused, counts.closed), (2, 1, 1));
}

#[tokio::test]
async fn a_server_that_is_not_there_closes_and_can_come_back() {
    let proxy = Proxy::new(Protocol::Raw);
    assert!(is_closed(&mut connect(&proxy).await).await);
    assert_eq!(proxy.counts().unreachable, 1);
    let (server, _heard) = echo().await;
    proxy.point_at(server);
    assert_eq!(says(&mut connect(&proxy).await, "b").await, "b");
}

#[tokio::test]
async fn delay_and_limit_take_their_time() {
    let (proxy, _heard) = linked().await;
    let mut client = connect(&proxy).await;
    proxy.set(Link::delayed(Duration::from_millis(80)));
    let start = Instant::now();
    assert_eq!(says(&mut client, "far").await, "far");
    assert!(start.elapsed() >= Duration::from_millis(160));
    proxy.set(Link::limited(200_000));
    let start = Instant::now();
    client.write_all(&[7; 40_000]).await.unwrap();
    reads(&mut client, 40_000).await;
    // Both directions at once: a fifth of a second.
    assert!(
        start.elapsed() >= Duration::from_millis(190),
        "{:?}",
        start.elapsed()
    );
    let counts = proxy.counts();
    assert!(counts.delayed == 2 && counts.limited >= 6, "{counts:?}");
}

#[tokio::test]
async fn a_held_request_arrives_after_its_sender_died_and_others_pass() {
    let (proxy, mut heard) = linked().await;
    let hold = proxy.hold(|request| request.contains(b"COMMIT"));
    let mut client = connect(&proxy).await;
    assert_eq!(says(&mut client, "BEGIN").await, "BEGIN");
    assert_eq!(hears(&mut heard).await, "BEGIN");
    client.write_all(b"COMMIT").await.unwrap();
    hold.caught(SOON).await;
    drop(client);
    hold.orphaned(SOON).await;
    // One request only, and only its connection waits.
    assert_eq!(says(&mut connect(&proxy).await, "COMMIT").await, "COMMIT");
    assert_eq!(hears(&mut heard).await, "COMMIT");
    assert_eq!(hears(&mut heard).await, "END");
    hold.let_go();
    assert_eq!(hold.outcome(SOON).await, Outcome::Delivered);
    hold.answered(SOON).await;
    assert_eq!(hears(&mut heard).await, "COMMIT");
    assert_eq!(hears(&mut heard).await, "END");
    let counts = proxy.counts();
    assert_eq!(
        (counts.held, counts.let_go, counts.let_go_orphaned),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn a_held_request_whose_sender_was_cut_off_arrives_behind_what_that_sends_again() {
    let (proxy, mut heard) = linked().await;
    let hold = proxy.hold(|request| request.contains(b"COMMIT"));
    let mut client = connect(&proxy).await;
    client.write_all(b"COMMIT").await.unwrap();
    hold.caught(SOON).await;
    assert!(is_silent(&mut client).await);
    hold.cut_off();
    assert!(is_closed(&mut client).await);
    drop(client);
    hold.orphaned(SOON).await;
    assert_eq!(says(&mut connect(&proxy).await, "again").await, "again");
    assert_eq!(hears(&mut heard).await, "again");
    assert_eq!(hears(&mut heard).await, "END");
    hold.let_go();
    assert_eq!(hold.outcome(SOON).await, Outcome::Delivered);
    hold.answered(SOON).await;
    assert_eq!(hears(&mut heard).await, "COMMIT");
    assert_eq!(hears(&mut heard).await, "END");
}

#[tokio::test]
async fn what_follows_a_held_request_waits_with_it() {
    let (server, _heard) = echo().await;
    let proxy = Proxy::to(Protocol::Kafka, server);
    let request = |key: u8| vec![0, 0, 0, 3, 0, key, 9];
    let hold = proxy.hold(|request| request.api_key() == Some(26));
    let mut client = connect(&proxy).await;
    let all = [request(3), request(26), request(1)].concat();
    client.write_all(&all).await.unwrap();
    assert_eq!(reads(&mut client, 7).await, all[..7]);
    hold.caught(SOON).await;
    assert!(is_silent(&mut client).await);
    drop(hold);
    assert_eq!(reads(&mut client, 14).await, all[7..]);
}

#[tokio::test]
async fn a_held_request_whose_connection_is_closed_never_arrives() {
    let (proxy, mut heard) = linked().await;
    let hold = proxy.hold(|_| true);
    let mut client = connect(&proxy).await;
    client.write_all(b"never").await.unwrap();
    hold.caught(SOON).await;
    proxy.close_all();
    assert_eq!(hold.outcome(SOON).await, Outcome::Closed);
    assert!(is_closed(&mut client).await);
    hold.let_go();
    assert_eq!(hears(&mut heard).await, "END");
}

#[tokio::test]
async fn a_proxy_that_is_dropped_closes_its_connections() {
    let (proxy, _heard) = linked().await;
    let mut client = connect(&proxy).await;
    assert_eq!(says(&mut client, "a").await, "a");
    drop(proxy);
    assert!(is_closed(&mut client).await);
}
