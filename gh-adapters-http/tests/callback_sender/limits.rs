//! Receivers that stall, never end, or break off: the sender returns in time and keeps little.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{error_of, loopback_sender, send, short_limits};
use gh_adapters_http::callbacks::SendLimits;
use gh_core::ports::callback_sender::{SendError, SendOutcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A receiver of one connection, written byte by byte. It ends when the task set is dropped.
async fn receiver<F, Served>(serve: F) -> (SocketAddr, JoinSet<()>)
where
    F: FnOnce(TcpStream) -> Served + Send + 'static,
    Served: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    });
    (address, tasks)
}

/// Reads to the end of a request whose body is `{}`.
async fn read_request(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n{}") {
        let mut buffer = [0; 1_024];
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the request broke off");
        seen.extend_from_slice(&buffer[..count]);
    }
}

async fn answer(stream: &mut TcpStream, bytes: &[u8]) {
    read_request(stream).await;
    stream.write_all(bytes).await.unwrap();
}

#[track_caller]
fn assert_ended_at_the_limit(outcome: &SendOutcome) {
    let SendOutcome::Unanswered { error, took } = outcome else {
        panic!("answered: {outcome:?}");
    };
    assert_eq!(*error, SendError::Timeout);
    assert!(*took >= short_limits().total, "ended early: {took:?}");
    assert!(*took < Duration::from_secs(5), "ended late: {took:?}");
}

#[tokio::test]
async fn a_receiver_that_never_answers_ends_at_the_total_limit() {
    let (address, _tasks) = receiver(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;

    let outcome = send(&loopback_sender(short_limits()), &format!("http://{address}/")).await;

    assert_ended_at_the_limit(&outcome);
}

#[tokio::test]
async fn a_body_that_drips_ends_at_the_total_limit() {
    let (address, _tasks) = receiver(|mut stream| async move {
        answer(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
        let mut drip = tokio::time::interval(Duration::from_millis(20));
        // Ends when the sender has had enough.
        while stream.write_all(b".").await.is_ok() {
            drip.tick().await;
        }
    })
    .await;

    let outcome = send(&loopback_sender(short_limits()), &format!("http://{address}/")).await;

    assert_ended_at_the_limit(&outcome);
}

#[tokio::test]
async fn of_an_endless_body_only_the_beginning_is_read() {
    let limits = SendLimits { body_bytes: 10_000, excerpt_chars: 1_000, ..SendLimits::default() };
    let (address, mut tasks) = receiver(|mut stream| async move {
        answer(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n").await;
        // Ends when the sender hangs up.
        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
    })
    .await;

    let outcome = send(&loopback_sender(limits), &format!("http://{address}/")).await;

    let SendOutcome::Answered { status, excerpt, .. } = outcome else {
        panic!("no answer: {outcome:?}");
    };
    assert_eq!(status, 200);
    assert_eq!(excerpt, "x".repeat(1_000));
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let (address, _tasks) = receiver(|mut stream| async move {
        answer(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await;
    })
    .await;

    let outcome = send(&loopback_sender(SendLimits::default()), &format!("http://{address}/")).await;

    assert_eq!(error_of(&outcome), SendError::Internal);
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_no_answer() {
    let (address, _tasks) = receiver(|mut stream| async move { read_request(&mut stream).await }).await;

    let outcome = send(&loopback_sender(SendLimits::default()), &format!("http://{address}/")).await;

    assert_eq!(error_of(&outcome), SendError::Internal);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_tls_error() {
    let (address, _tasks) = receiver(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Takes what comes, so that closing does not destroy the answer on its way.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    })
    .await;

    let outcome = send(&loopback_sender(SendLimits::default()), &format!("https://{address}/")).await;

    assert_eq!(error_of(&outcome), SendError::Tls);
}

#[tokio::test]
async fn a_handshake_that_stalls_ends_at_the_connect_limit() {
    let limits = SendLimits { connect: Duration::from_millis(200), ..SendLimits::default() };
    let (address, _tasks) = receiver(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;

    let outcome = send(&loopback_sender(limits), &format!("https://{address}/")).await;

    let SendOutcome::Unanswered { error, took } = outcome else {
        panic!("answered: {outcome:?}");
    };
    assert_eq!(error, SendError::Connect);
    assert!(took < limits.total, "{took:?}");
}
