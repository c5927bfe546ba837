//! An upstream that does what a test tells it to, and remembers every byte that it was sent.

use super::wire::{Framing, Head, Reader, Stream};
use super::{eventually, soon, tls};
use std::collections::BTreeMap;
use std::io;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What an origin does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// After a time.
    After(Duration, Reply),
    /// At once.
    Answer(Reply),
    /// `Transfer-Encoding: chunked`, with a pause before each chunk.
    Chunked { chunks: Vec<Vec<u8>>, pause: Duration },
    /// The request's body comes back.
    Echo,
    /// Never answers; does not even read the body.
    Freeze,
    /// Promises so many bytes, sends fewer, then resets the connection.
    Half { promised: usize, sent: usize },
    /// Exactly these bytes, then what `Then` says.
    Raw(Vec<u8>, Then),
    /// Reads the whole request and resets the connection.
    Reset,
    /// Never answers; takes whatever else comes until the client has left.
    Silent,
    /// These bytes, each after its pause, then what `Then` says.
    Steps(Vec<(Duration, Vec<u8>)>, Then),
    /// Server-sent events `data: 0`, `data: 1`, …, one each `every`.
    Ticks { count: usize, every: Duration },
}

/// What follows bytes that are no whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Close,
    Freeze,
    Keep,
    Reset,
}

/// A response with a length.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// 200 with a text.
    pub(crate) fn text(body: &str) -> Self {
        Self::new(200).header("content-type", "text/plain").body(body)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The number of the connection, from 0.
    pub(crate) connection: usize,
    pub(crate) head: Head,
    /// Decoded; empty where the behaviour does not read it.
    pub(crate) body: Vec<u8>,
}

/// Decides by the head.
type Decide = Arc<dyn Fn(&Head) -> Behaviour + Send + Sync>;

struct Script {
    otherwise: Behaviour,
    by_path: BTreeMap<String, Behaviour>,
    decide: Option<Decide>,
    /// Connections are closed, unannounced, after so many answers.
    close_after: Option<usize>,
    /// Connections with a lower number end at their next request, which is not answered.
    dead_below: usize,
    /// Where each request is noted before it is answered, for an origin that will be killed.
    journal: Option<std::fs::File>,
}

struct Shared {
    name: String,
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
    open: Arc<AtomicUsize>,
}

/// A connection that counts as open while this exists.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

enum Command {
    Kill(oneshot::Sender<()>),
    Revive(oneshot::Sender<()>),
}

/// A server on a thread and a port of its own.
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Origin {
    /// Answers 200 with `ok`.
    pub(crate) async fn start() -> Self {
        Self::named("origin").await
    }

    /// As [`Origin::start`]; every answer carries `x-origin: name`.
    pub(crate) async fn named(name: &str) -> Self {
        Self::listen(name, "127.0.0.1:0".parse().unwrap(), None).await
    }

    /// Speaks TLS with a certificate for `names`.
    pub(crate) async fn tls(authority: &tls::Authority, names: &[&str]) -> Self {
        let acceptor = authority.acceptor(names, &["http/1.1"]);
        Self::listen("origin", "127.0.0.1:0".parse().unwrap(), Some(acceptor)).await
    }

    /// At a given address.
    pub(crate) async fn listen(name: &str, at: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let script = Script {
            otherwise: Behaviour::Answer(Reply::text("ok")),
            by_path: BTreeMap::new(),
            decide: None,
            close_after: None,
            dead_below: 0,
            journal: None,
        };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            script: Mutex::new(script),
            seen: Mutex::new(Vec::new()),
            connections: Mutex::new(0),
            open: Arc::default(),
        });
        let (commands, inbox) = mpsc::unbounded_channel();
        let (bound, address) = oneshot::channel();
        let server = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(serve(at, tls, server, inbox, bound));
        });
        let address = soon("an origin", address).await.unwrap();
        Self { address, shared, commands: Some(commands), thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// As it stands in a conf file.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Answers every request so, from now on.
    pub(crate) fn answer(&self, behaviour: Behaviour) -> &Self {
        self.script(|script| script.otherwise = behaviour)
    }

    /// Answers requests for this path so.
    pub(crate) fn on(&self, path: &str, behaviour: Behaviour) -> &Self {
        self.script(|script| {
            script.by_path.insert(path.to_owned(), behaviour);
        })
    }

    /// Lets a function decide, before all else.
    pub(crate) fn decide(&self, f: impl Fn(&Head) -> Behaviour + Send + Sync + 'static) -> &Self {
        self.script(|script| script.decide = Some(Arc::new(f)))
    }

    /// Closes each connection, unannounced, after so many answers.
    pub(crate) fn close_after(&self, answers: usize) -> &Self {
        self.script(|script| script.close_after = Some(answers))
    }

    /// Ends each connection of the moment when it is used again, without an answer.
    pub(crate) fn end_when_used_again(&self) -> &Self {
        let connections = self.connections();
        self.script(|script| script.dead_below = connections)
    }

    /// Notes each request in a file before it is answered.
    pub(crate) fn journal(&self, file: std::fs::File) -> &Self {
        self.script(|script| script.journal = Some(file))
    }

    fn script(&self, change: impl FnOnce(&mut Script)) -> &Self {
        change(&mut self.shared.script.lock().unwrap());
        self
    }

    /// How many requests came in, answered or not.
    pub(crate) fn requests(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// How many connections came in.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until `count` connections are open.
    pub(crate) async fn has_open(&self, count: usize) {
        let what = format!("{count} open connections, not {}", self.open());
        eventually(&what, || (self.open() == count).then_some(())).await;
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// Waits until `count` requests have come in.
    pub(crate) async fn reached(&self, count: usize) {
        let what = format!("{count} requests at the origin");
        eventually(&what, || (self.requests() >= count).then_some(())).await;
    }

    /// Stops listening and resets every connection.
    pub(crate) async fn kill(&self) {
        self.command(Command::Kill).await;
    }

    /// Listens again, at the same address.
    pub(crate) async fn revive(&self) {
        self.command(Command::Revive).await;
    }

    async fn command(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, wait) = oneshot::channel();
        let commands = self.commands.as_ref().unwrap();
        assert!(commands.send(command(done)).is_ok(), "the origin's thread has died");
        soon("the origin", wait).await.unwrap();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.commands.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the origin's thread has panicked");
        }
    }
}

async fn serve(
    at: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    bound: oneshot::Sender<SocketAddr>,
) {
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    bound.send(address).unwrap();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let generation = watch::Sender::new(0_u32);
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                None => return,
                Some(Command::Kill(done)) => {
                    listener = None;
                    generation.send_modify(|number| *number += 1);
                    while connections.join_next().await.is_some() {}
                    done.send(()).unwrap();
                }
                Some(Command::Revive(done)) => {
                    listener = Some(TcpListener::bind(address).await.unwrap());
                    done.send(()).unwrap();
                }
            },
            stream = accept(listener.as_ref()) => {
                let mut killed = generation.subscribe();
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    let stream = stream.into_std().unwrap();
                    let socket = socket2::Socket::from(stream.try_clone().unwrap());
                    let stream = TcpStream::from_std(stream).unwrap();
                    let reset = tokio::select! {
                        reset = connection(stream, tls, shared) => reset,
                        _ = killed.changed() => true,
                    };
                    if reset {
                        socket.set_linger(Some(Duration::ZERO)).unwrap();
                    }
                });
            }
            Some(ended) = connections.join_next() => ended.unwrap(),
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.unwrap().0,
        None => std::future::pending().await,
    }
}

/// Serves one connection; whether it is to end by a reset.
async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) -> bool {
    let _open = Open::count(&shared.open);
    let number = {
        let mut count = shared.connections.lock().unwrap();
        *count += 1;
        *count - 1
    };
    stream.set_nodelay(true).unwrap();
    let stream: Stream = match tls {
        None => Box::new(stream),
        // A client that does not like the certificate says so and is gone.
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => Box::new(stream),
            Err(_) => return false,
        },
    };
    let mut reader = Reader::new(stream);
    for answered in 1.. {
        // A peer that goes away is the peer's business.
        let Ok(Some(head)) = reader.head().await else { return false };
        let keeps_alive = head.keeps_alive();
        let Ok(then) = exchange(&mut reader, head, number, &shared).await else { return false };
        let spent = shared.script.lock().unwrap().close_after.is_some_and(|max| answered >= max);
        match then {
            Then::Reset => return true,
            Then::Freeze => std::future::pending().await,
            Then::Keep if keeps_alive && !spent => {}
            Then::Close | Then::Keep => break,
        }
    }
    // A TLS stream says goodbye; whether it is heard does not matter.
    drop(reader.stream.shutdown().await);
    false
}

async fn exchange(
    reader: &mut Reader<Stream>,
    head: Head,
    connection: usize,
    shared: &Shared,
) -> io::Result<Then> {
    let behaviour = shared.script.lock().unwrap().choose(&head);
    let framing = head.request_framing();
    let index = {
        shared.script.lock().unwrap().note(&head)?;
        let mut seen = shared.seen.lock().unwrap();
        seen.push(Seen { connection, head: head.clone(), body: Vec::new() });
        seen.len() - 1
    };
    if connection < shared.script.lock().unwrap().dead_below {
        return Ok(Then::Close);
    }
    if matches!(behaviour, Behaviour::Freeze) {
        return Ok(Then::Freeze);
    }
    if matches!(behaviour, Behaviour::Silent) {
        while !reader.some().await?.is_empty() {}
        return Ok(Then::Close);
    }
    if head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        reader.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let body =
        if framing == Framing::Length(0) { Vec::new() } else { reader.body(framing).await? };
    shared.seen.lock().unwrap()[index].body.clone_from(&body);
    respond(&mut reader.stream, behaviour, &shared.name, &head, body).await
}

impl Script {
    fn choose(&self, head: &Head) -> Behaviour {
        if let Some(decide) = &self.decide {
            return decide(head);
        }
        let target = head.target();
        let path = target.split('?').next().unwrap_or_default();
        self.by_path.get(path).unwrap_or(&self.otherwise).clone()
    }

    fn note(&mut self, head: &Head) -> io::Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let tag = head.header("x-request-tag").unwrap_or_default();
        journal.write_all(format!("{} {} {tag}\n", head.method(), head.target()).as_bytes())
    }
}

async fn respond(
    stream: &mut Stream,
    behaviour: Behaviour,
    name: &str,
    head: &Head,
    body: Vec<u8>,
) -> io::Result<Then> {
    match behaviour {
        Behaviour::After(span, reply) => {
            tokio::time::sleep(span).await;
            answer(stream, reply, name, head).await
        }
        Behaviour::Answer(reply) => answer(stream, reply, name, head).await,
        Behaviour::Chunked { chunks, pause } => {
            let fields = format!("x-origin: {name}\r\ntransfer-encoding: chunked\r\n\r\n");
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{fields}").as_bytes()).await?;
            for chunk in chunks {
                tokio::time::sleep(pause).await;
                stream.write_all(&chunked(&chunk)).await?;
                stream.flush().await?;
            }
            stream.write_all(b"0\r\n\r\n").await?;
            stream.flush().await?;
            Ok(Then::Keep)
        }
        Behaviour::Echo => answer(stream, Reply::new(200).body(body), name, head).await,
        // Decided before the body was read.
        Behaviour::Freeze | Behaviour::Silent => Ok(Then::Freeze),
        Behaviour::Half { promised, sent } => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {promised}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&vec![b'x'; sent]).await?;
            stream.flush().await?;
            // Bytes still on their way when a reset comes may be lost; these are to arrive.
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(Then::Reset)
        }
        Behaviour::Raw(bytes, then) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            Ok(then)
        }
        Behaviour::Reset => Ok(Then::Reset),
        Behaviour::Steps(steps, then) => {
            for (pause, bytes) in steps {
                tokio::time::sleep(pause).await;
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Ok(then)
        }
        Behaviour::Ticks { count, every } => ticks(stream, name, count, every).await,
    }
}

async fn answer(stream: &mut Stream, reply: Reply, name: &str, head: &Head) -> io::Result<Then> {
    let mut text = format!("HTTP/1.1 {} Scripted\r\nx-origin: {name}\r\n", reply.status);
    for (field, value) in &reply.headers {
        text.push_str(&format!("{field}: {value}\r\n"));
    }
    if reply.status != 204 && reply.status != 304 {
        text.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    let closes = !Head(bytes.clone()).keeps_alive();
    if head.method() != "HEAD" && reply.status != 204 && reply.status != 304 {
        bytes.extend(&reply.body);
    }
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(if closes { Then::Close } else { Then::Keep })
}

async fn ticks(stream: &mut Stream, name: &str, count: usize, every: Duration) -> io::Result<Then> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nx-origin: {name}\r\ncontent-type: text/event-stream\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    for tick in 0..count {
        stream.write_all(&chunked(format!("data: {tick}\n\n").as_bytes())).await?;
        stream.flush().await?;
        tokio::time::sleep(every).await;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    stream.flush().await?;
    Ok(Then::Keep)
}

fn chunked(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend(bytes);
    chunk.extend(b"\r\n");
    chunk
}
