//! One connection: TLS, HTTP/1.1 with every part of a request bounded in size and time, and a lingering end so that
//! a client that is still sending reads why it was refused.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::app::Service;
use super::body::incoming;

/// Request line and headers together, bytes.
const HEAD: usize = 32 << 10;
/// Headers of a request.
const HEADERS: usize = 64;
/// How long a refused client's rest is read and thrown away.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it.
const LINGER_BYTES: usize = 16 << 20;

/// Serves a connection until it ends, or, once `stop` says so, until the request under way is answered.
pub(super) async fn serve(
    service: Service,
    stream: TcpStream,
    peer: IpAddr,
    tls: Option<TlsAcceptor>,
    stop: watch::Receiver<bool>,
    patience: Duration,
) {
    // Answers are small and whole: nothing is gained by waiting for more.
    stream.set_nodelay(true).ok();
    let Some(tls) = tls else {
        return drive(service, stream, peer, stop, patience).await;
    };
    match timeout(patience, tls.accept(stream)).await {
        Ok(Ok(stream)) => drive(service, stream, peer, stop, patience).await,
        Ok(Err(error)) => tracing::debug!(client = %peer, %error, "no TLS was agreed"),
        Err(_) => tracing::debug!(client = %peer, "the TLS handshake took too long"),
    }
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    service: Service,
    stream: S,
    peer: IpAddr,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let under_way = Arc::clone(&asked);
    let answer = service_fn(move |request| -> BoxFuture<'static, _> {
        let (service, under_way) = (service.clone(), Arc::clone(&under_way));
        Box::pin(async move {
            under_way.store(true, Ordering::Relaxed);
            let answer = service.answer(peer, incoming(request)).await;
            under_way.store(false, Ordering::Relaxed);
            answer
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_headers(HEADERS)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    let (mut stopping, mut idle) = (false, false);
    loop {
        // Biased: what can be answered is answered before the end is looked at.
        let outcome = tokio::select! {
            biased;
            outcome = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(outcome),
            _ = stop.changed(), if !stopping => None,
        };
        match outcome {
            Some(outcome) => {
                if let Err(error) = outcome {
                    tracing::debug!(client = %peer, %error, "a connection ended early");
                }
                break;
            }
            None => {
                stopping = true;
                idle = !asked.load(Ordering::Relaxed);
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
    // A client that asks nothing has no answer to lose: the host would end later for nothing.
    let most = if idle { 0 } else { LINGER_BYTES };
    linger(connection.into_parts().io.into_inner(), most).await;
}

/// Says that no more comes, then reads what is still being sent, at most so many bytes: closing with unread bytes would make the client's
/// system throw away the answer it has not read yet.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, most: usize) {
    let rest = async {
        stream.shutdown().await?;
        let mut buffer = [0; 8 << 10];
        let mut left = most;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // However it goes, the connection is closed after it.
    timeout(LINGER, rest).await.ok();
}

/// Tells a client that there are too many connections.
pub(super) async fn turn_away(mut stream: TcpStream) {
    let body = r#"{"type":"urn:wasmill:problem:full","title":"take the connection","status":503,"detail":"as many connections as the host takes are open","instance":"","code":"full","hint":"try again, or raise limits.connections of [http]"}"#;
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    if let Ok(Ok(())) = timeout(LINGER, stream.write_all(answer.as_bytes())).await {
        linger(stream, LINGER_BYTES).await;
    }
}
