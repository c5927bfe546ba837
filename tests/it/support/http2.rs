//! HTTP/2 frame by frame, for what an ordinary client never sends.

use super::{soon, tls};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use std::net::SocketAddr;

/// One connection.
pub(crate) struct Http2 {
    sender: SendRequest<Bytes>,
    authority: String,
}

/// A request whose body is still to come, and the response to it.
pub(crate) struct Exchange {
    pub(crate) body: SendStream<Bytes>,
    response: h2::client::ResponseFuture,
}

/// A whole response.
pub(crate) struct Http2Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Http2 {
    pub(crate) async fn connect(address: SocketAddr, trust: &tls::Trust) -> Self {
        let stream = soon("TLS", trust.connect(address, &["h2"])).await.unwrap();
        let (sender, driver) = soon("HTTP/2", h2::client::handshake(stream)).await.unwrap();
        // Its failures show at the streams.
        tokio::spawn(async { drop(driver.await) });
        Self { sender, authority: format!("{}:{}", tls::NAME, address.port()) }
    }

    /// Sends a head with these fields, each on its own; `end` says that there is no body.
    pub(crate) async fn begin(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        end: bool,
    ) -> Exchange {
        let uri = format!("https://{}{path}", self.authority);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let ready = soon("room for a stream", self.sender.clone().ready()).await;
        let mut sender = ready.unwrap();
        let (response, body) = sender.send_request(request.body(()).unwrap(), end).unwrap();
        Exchange { body, response }
    }

    /// As [`Http2::begin`] without a body, and its whole response.
    pub(crate) async fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Http2Response {
        self.begin("GET", path, fields, true).await.finish().await.unwrap()
    }
}

impl Exchange {
    /// Both directions, to be used at once.
    pub(crate) fn split(self) -> (SendStream<Bytes>, h2::client::ResponseFuture) {
        (self.body, self.response)
    }

    /// The head of the response; its body piece by piece.
    pub(crate) async fn open(self) -> Result<Response<RecvStream>, h2::Error> {
        soon("a head", self.response).await
    }

    /// The whole response. The body may go on for as long.
    pub(crate) async fn finish(self) -> Result<Http2Response, h2::Error> {
        let Self { response, body: _sending } = self;
        let (head, mut stream) = soon("a head", response).await?.into_parts();
        let mut body = Vec::new();
        while let Some(data) = soon("a piece of a body", stream.data()).await {
            let data = data?;
            stream.flow_control().release_capacity(data.len())?;
            body.extend(data);
        }
        let trailers = soon("trailers", stream.trailers()).await?;
        Ok(Http2Response { status: head.status.as_u16(), headers: head.headers, body, trailers })
    }
}
