//! A gRPC service and its client, with no generated code: one message, three kinds of call.

use super::{soon, tls};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// The one message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ping {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(uint32, tag = "2")]
    pub(crate) count: u32,
}

impl Ping {
    pub(crate) fn new(text: &str, count: u32) -> Self {
        Self { text: text.to_owned(), count }
    }
}

/// Starts the service `it.Echo` (HTTP/2 in plain text, as upstreams speak it); it ends with the runtime.
///
/// `Say` answers the ping; a text of `fail` is refused with FAILED_PRECONDITION. `Count` answers
/// `count` pings, one each 10 ms. `Chat` answers each ping as it comes.
pub(crate) async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = server::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(dispatch));
            // A client that goes away is the client's business.
            tokio::spawn(async { drop(connection.await) });
        }
    });
    address
}

async fn dispatch(request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    let request = request.map(Body::new);
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Ping, Ping>::new());
    let path = request.uri().path().to_owned();
    Ok(match path.strip_prefix("/it.Echo/") {
        Some("Say") => grpc.unary(Say, request).await,
        Some("Count") => grpc.server_streaming(Count, request).await,
        Some("Chat") => grpc.streaming(Chat, request).await,
        _ => Status::unimplemented("no such method").into_http(),
    })
}

type Pings = Pin<Box<dyn Stream<Item = Result<Ping, Status>> + Send>>;

struct Say;

impl tonic::server::UnaryService<Ping> for Say {
    type Response = Ping;
    type Future = BoxFuture<Response<Ping>, Status>;

    fn call(&mut self, request: Request<Ping>) -> Self::Future {
        Box::pin(async move {
            let ping = request.into_inner();
            if ping.text == "fail" {
                return Err(Status::failed_precondition("asked to"));
            }
            Ok(Response::new(ping))
        })
    }
}

struct Count;

impl tonic::server::ServerStreamingService<Ping> for Count {
    type Response = Ping;
    type ResponseStream = Pings;
    type Future = BoxFuture<Response<Pings>, Status>;

    fn call(&mut self, request: Request<Ping>) -> Self::Future {
        Box::pin(async move {
            let Ping { text, count } = request.into_inner();
            let pings = (0..count).map(move |number| Ok(Ping::new(&text, number)));
            let pings = tonic::codegen::tokio_stream::iter(pings);
            let pings: Pings = Box::pin(pings.throttle(Duration::from_millis(10)));
            Ok(Response::new(pings))
        })
    }
}

struct Chat;

impl tonic::server::StreamingService<Ping> for Chat {
    type Response = Ping;
    type ResponseStream = Pings;
    type Future = BoxFuture<Response<Pings>, Status>;

    fn call(&mut self, request: Request<Streaming<Ping>>) -> Self::Future {
        Box::pin(async move {
            let pings: Pings = Box::pin(request.into_inner());
            Ok(Response::new(pings))
        })
    }
}

/// A client over one HTTP/2 connection.
pub(crate) struct GrpcClient {
    grpc: tonic::client::Grpc<Channel>,
    headers: Vec<(String, String)>,
}

impl GrpcClient {
    /// Over TLS, as clients of the gateway come.
    pub(crate) async fn tls(address: SocketAddr, trust: &tls::Trust) -> Self {
        let stream = soon("TLS", trust.connect(address, &["h2"])).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, driver) = handshake.await.unwrap();
        tokio::spawn(async { drop(driver.await) });
        Self::over(sender, format!("https://{}:{}", tls::NAME, address.port()))
    }

    /// In plain text, as the gateway speaks to upstreams.
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, driver) = handshake.await.unwrap();
        tokio::spawn(async { drop(driver.await) });
        Self::over(sender, format!("http://{address}"))
    }

    fn over(sender: http2::SendRequest<Body>, origin: String) -> Self {
        let grpc = tonic::client::Grpc::with_origin(Channel(sender), origin.parse().unwrap());
        Self { grpc, headers: Vec::new() }
    }

    /// Sends this with every call.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) async fn say(&mut self, ping: Ping) -> Result<Ping, Status> {
        let request = self.request(ping);
        self.ready().await?;
        let call = self.grpc.unary(request, path("Say"), ProstCodec::new());
        soon("an answer", call).await.map(Response::into_inner)
    }

    pub(crate) async fn count(&mut self, ping: Ping) -> Result<Streaming<Ping>, Status> {
        let request = self.request(ping);
        self.ready().await?;
        let call = self.grpc.server_streaming(request, path("Count"), ProstCodec::new());
        soon("a stream", call).await.map(Response::into_inner)
    }

    /// Each ping of `pings` comes back.
    pub(crate) async fn chat(
        &mut self,
        pings: impl Stream<Item = Ping> + Send + 'static,
    ) -> Result<Streaming<Ping>, Status> {
        let request = self.request(pings);
        self.ready().await?;
        let call = self.grpc.streaming(request, path("Chat"), ProstCodec::new());
        soon("a stream", call).await.map(Response::into_inner)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.headers {
            let name: tonic::metadata::MetadataKey<tonic::metadata::Ascii> = name.parse().unwrap();
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        request
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::new(Code::Unavailable, error.to_string()))
    }
}

fn path(method: &str) -> http::uri::PathAndQuery {
    format!("/it.Echo/{method}").parse().unwrap()
}

struct Channel(http2::SendRequest<Body>);

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, StdError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.send_request(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| Body::new(body.map_err(|e| Status::from_error(e.into())))))
        })
    }
}
