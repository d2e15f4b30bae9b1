//! One connection to the server that is kept alive, for one request at a time, and does no more than that takes.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Failure;

/// A connection of one caller.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    _driving: JoinSet<()>,
}

/// A key or token, as a header holds it.
#[derive(Clone, Debug)]
pub(crate) struct Key(HeaderValue);

impl Key {
    /// Makes the header's value.
    pub(crate) fn new(text: &str) -> Result<Self, Failure> {
        let value = HeaderValue::try_from(format!("Bearer {text}"));
        value.map(Self).map_err(|_| Failure::Wrong("a key or token that no header can hold".into()))
    }
}

impl Connection {
    /// Connects to the server at this address, such as `http://127.0.0.1:3100`.
    pub(crate) async fn open(base_url: &str) -> Result<Self, Failure> {
        let host = base_url.trim_start_matches("http://").trim_end_matches('/');
        let failed = || Failure::system(format!("cannot connect to {host}"));
        let stream = TcpStream::connect(host).await.map_err(failed())?;
        stream.set_nodelay(true).map_err(failed())?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            // What goes wrong is told to the request that it goes wrong for.
            let _ended = driver.await;
        });
        let host = HeaderValue::try_from(host).map_err(|_| Failure::Wrong(format!("{host:?} is no host")))?;
        Ok(Self { sender, host, _driving: driving })
    }

    /// `POST` of a body of JSON; the whole answer.
    pub(crate) async fn post(&mut self, path: &str, key: &Key, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        let request = Request::post(path)
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &key.0)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(body))
            .map_err(|error| Failure::Wrong(format!("{path} is no path: {error}")))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// The same; any other status is wrong.
    pub(crate) async fn expect(
        &mut self,
        path: &str,
        key: &Key,
        body: Bytes,
        expected: StatusCode,
    ) -> Result<Bytes, Failure> {
        let (status, answer) = self.post(path, key, body).await?;
        if status == expected {
            return Ok(answer);
        }
        Err(Failure::Wrong(format!("POST {path}: {status}: {}", String::from_utf8_lossy(&answer))))
    }
}
