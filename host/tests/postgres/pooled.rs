//! A pool in transaction mode between host and server: every client gets the server's one session for a transaction.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use wasmill::config::Secret;
use wasmill::error::Blame;

use crate::support::{Place, ensure, quakes};

/// A message of the server: its type and all of its bytes.
async fn message(server: &mut UnixStream) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    server.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
    let mut all = head.to_vec();
    all.resize(1 + length, 0);
    server.read_exact(&mut all[5..]).await.unwrap();
    (head[0], all)
}

/// Everything the server says until it is ready outside a transaction.
async fn until_idle(server: &mut UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    loop {
        let (kind, bytes) = message(server).await;
        said.extend_from_slice(&bytes);
        if kind == b'Z' && bytes[5] == b'I' {
            return said;
        }
    }
}

/// Serves a client: a greeting of its own, then each request in a turn at the session.
async fn serve(mut client: UnixStream, session: Arc<Mutex<UnixStream>>, greeting: Vec<u8>) {
    let mut buffer = vec![0; 1 << 16];
    if !matches!(client.read(&mut buffer).await, Ok(1..)) {
        return;
    }
    client.write_all(&greeting).await.unwrap();
    while let Ok(size @ 1..) = client.read(&mut buffer).await {
        // The end of a client is not the end of the session.
        if buffer[0] == b'X' {
            return;
        }
        let mut session = session.lock().await;
        session.write_all(&buffer[..size]).await.unwrap();
        let said = until_idle(&mut session).await;
        client.write_all(&said).await.unwrap();
    }
}

#[tokio::test]
async fn a_pool_in_transaction_mode_is_found_out() {
    let place = Place::new().await;
    let url = place.server.socket_url();
    let server = url.split('\'').nth(1).unwrap().to_owned();
    let port = url
        .split_whitespace()
        .find_map(|part| part.strip_prefix("port="))
        .unwrap();
    let socket = format!(".s.PGSQL.{port}");
    let mut session = UnixStream::connect(format!("{server}/{socket}"))
        .await
        .unwrap();
    let parameters = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(4 + parameters.len()).unwrap();
    session.write_all(&length.to_be_bytes()).await.unwrap();
    session.write_all(parameters).await.unwrap();
    let greeting = until_idle(&mut session).await;
    let session = Arc::new(Mutex::new(session));
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join(&socket)).unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, Arc::clone(&session), greeting.clone()));
        }
    });
    let mut settings = place.settings(vec![quakes()]);
    ensure(&settings).await.unwrap();
    settings.url = Secret::new(url.replace(&server, folder.path().to_str().unwrap()));
    let error = ensure(&settings).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Config, "{error}");
    assert!(
        error
            .hint_text()
            .is_some_and(|hint| hint.contains("pool_mode = session")),
        "{error:?}"
    );
}
