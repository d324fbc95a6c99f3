//! A WebSocket client on tokio-tungstenite and rmp-serde, which share no code with the gateway's
//! codecs.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::soon;

pub use tokio_tungstenite::tungstenite;

/// An open WebSocket.
pub struct WebSocket {
    stream: WebSocketStream<TcpStream>,
    response: Response,
}

impl WebSocket {
    /// Connects to `ws://addr` + path.
    ///
    /// # Panics
    /// When the upgrade is refused.
    pub async fn connect(addr: SocketAddr, path: &str) -> Self {
        Self::try_connect(addr, path, &[]).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Connects with further headers.
    ///
    /// # Errors
    /// When the upgrade is refused; [`Error::Http`] has the answer.
    ///
    /// # Panics
    /// When there is no connection.
    pub async fn try_connect(
        addr: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Box<Error>> {
        let mut request = format!("ws://{addr}{path}").into_client_request().expect("a URL");
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).expect("a header's name");
            let value = HeaderValue::from_str(value).expect("a header's value");
            request.headers_mut().insert(name, value);
        }
        soon("a WebSocket handshake", async {
            let tcp = TcpStream::connect(addr).await.expect("connect");
            tcp.set_nodelay(true).expect("a fresh socket");
            let (stream, response) = client_async(request, tcp).await.map_err(Box::new)?;
            Ok(Self { stream, response })
        })
        .await
    }

    /// The answer to the handshake.
    #[must_use]
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The stream itself, for what the helpers do not do.
    pub fn stream(&mut self) -> &mut WebSocketStream<TcpStream> {
        &mut self.stream
    }

    /// Sends a text frame.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send_text(&mut self, text: &str) {
        let sent = self.stream.send(Message::text(text));
        soon("a frame's way out", sent).await.expect("a frame is sent");
    }

    /// Whether its frames are MessagePack.
    fn is_packed(&self) -> bool {
        let subprotocol = self.response.headers().get("sec-websocket-protocol");
        subprotocol.is_some_and(|name| name == "tidewire.msgpack")
    }

    /// Sends a JSON value as its subprotocol has it.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send(&mut self, frame: &Value) {
        if !self.is_packed() {
            return self.send_text(&frame.to_string()).await;
        }
        let packed = rmp_serde::to_vec(frame).expect("JSON is MessagePack, too");
        let sent = self.stream.send(Message::binary(packed));
        soon("a frame's way out", sent).await.expect("a frame is sent");
    }

    /// The next message, pings answered and left out.
    ///
    /// # Panics
    /// When none comes, or the connection breaks.
    pub async fn next_message(&mut self) -> Message {
        loop {
            match soon("a WebSocket message", self.stream.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return message,
                Some(Err(error)) => panic!("the WebSocket broke: {error}"),
                None => panic!("the WebSocket has ended"),
            }
        }
    }

    /// The next message, which must be JSON text, or MessagePack where that was agreed on.
    ///
    /// # Panics
    /// When it is something else.
    pub async fn next_json(&mut self) -> Value {
        match self.next_message().await {
            Message::Text(text) if !self.is_packed() => {
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
            }
            Message::Binary(packed) if self.is_packed() => {
                rmp_serde::from_slice(&packed).unwrap_or_else(|e| panic!("{e}: {packed:x?}"))
            }
            other => panic!("not of the subprotocol: {other:?}"),
        }
    }

    /// The next frame, which must have this `type`.
    ///
    /// # Panics
    /// When it has another.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next_json().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// The next frame for which the test holds, leaving out others before it.
    ///
    /// # Panics
    /// When none comes.
    pub async fn wait_for(&mut self, what: &str, mut test: impl FnMut(&Value) -> bool) -> Value {
        soon(what, async {
            loop {
                let frame = self.next_json().await;
                if test(&frame) {
                    return frame;
                }
            }
        })
        .await
    }

    /// Sends a frame and returns the `ack` or `error` that carries its `id`, leaving out others.
    ///
    /// # Panics
    /// When none comes.
    pub async fn ask(&mut self, frame: &Value) -> Value {
        self.send(frame).await;
        let id = frame["id"].clone();
        self.wait_for("an answer", |answer| {
            matches!(answer["type"].as_str(), Some("ack" | "error" | "pong")) && answer["id"] == id
        })
        .await
    }

    /// Waits for the server's close frame, leaving out other messages; its code, 1005 without one
    /// and 1006 when the connection ends without a close.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn closed(&mut self) -> u16 {
        soon("a close frame", async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Close(frame))) => {
                        // The answer to the close is written by the next read.
                        let _ = self.stream.next().await;
                        return frame.map_or(1005, |frame: CloseFrame| frame.code.into());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return 1006,
                }
            }
        })
        .await
    }

    /// Closes and waits until the server did.
    pub async fn close(mut self) {
        // The server may have closed already.
        let _ = self.stream.close(None).await;
        self.closed().await;
    }
}
