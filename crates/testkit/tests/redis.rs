//! The Redis server and the proxy do what tests rely on.

use std::time::Duration;

use tidewire_testkit::{Direction, Proxy, RedisServer, Reply, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SET: [&str; 3] = ["SET", "k", "v"];
const GET: [&str; 2] = ["GET", "k"];

#[tokio::test]
async fn a_server_restarts_with_what_it_kept() {
    let mut forgetful = RedisServer::start().await;
    forgetful.command(&SET).await;
    assert_eq!(forgetful.command(&GET).await.text(), "v");
    forgetful.restart().await;
    assert_eq!(forgetful.command(&GET).await, Reply::Nil);

    let lasting = ["--appendonly", "yes", "--appendfsync", "always", "--requirepass", "secret"];
    let mut lasting = RedisServer::with(&lasting).await;
    lasting.command(&SET).await;
    lasting.restart().await;
    assert_eq!(lasting.command(&GET).await.text(), "v");
    lasting.terminate().await;
    lasting.restart_empty().await;
    assert_eq!(lasting.command(&GET).await, Reply::Nil);
}

#[tokio::test]
async fn a_paused_server_answers_later() {
    let mut redis = RedisServer::start().await;
    redis.pause();
    let mut stream = TcpStream::connect(redis.addr()).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    let early = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut answer));
    assert!(early.await.is_err());
    redis.resume();
    soon("PONG", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

/// A connection through the proxy that asks and answers.
async fn ping(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await?;
    Ok(())
}

#[tokio::test]
async fn a_proxy_breaks_and_heals() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.addr()).await;
    let mut first = TcpStream::connect(proxy.addr()).await.unwrap();
    soon("PONG", ping(&mut first)).await.unwrap();
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));

    proxy.cut().await;
    soon("a reset", ping(&mut first)).await.unwrap_err();
    TcpStream::connect(proxy.addr()).await.unwrap_err();
    proxy.heal().await;
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    soon("PONG", ping(&mut second)).await.unwrap();

    proxy.stall(Direction::Down);
    let stalled = tokio::time::timeout(Duration::from_millis(50), ping(&mut second));
    assert!(stalled.await.is_err());
    proxy.heal().await;
    let mut late = [0; 7];
    soon("the late PONG", second.read_exact(&mut late)).await.unwrap();
}
