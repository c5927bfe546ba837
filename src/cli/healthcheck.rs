//! `gateway healthcheck`: for containers that have no curl.

use super::complain;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

/// How long connecting, and each read and write, may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Options of `gateway healthcheck`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to ask; plain http only.
    #[arg(long, default_value = "http://127.0.0.1:3000/health", env = "DATAHUB_HEALTH_URL")]
    url: String,
}

/// Asks, and exits 0 for a status of 200.
pub(super) fn run(args: &Args) -> ExitCode {
    match ask(&args.url) {
        Ok(200) => ExitCode::SUCCESS,
        Ok(status) => {
            complain(&format!("unhealthy: {} answered {status}", args.url));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&format!("unhealthy: {} cannot be asked: {error:#}", args.url));
            ExitCode::FAILURE
        }
    }
}

fn ask(url: &str) -> anyhow::Result<u16> {
    let uri: http::Uri = url.parse()?;
    anyhow::ensure!(uri.scheme_str() == Some("http"), "only http:// can be asked");
    let host = uri.host().unwrap_or_default();
    let address = (host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80))
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| anyhow::anyhow!("`{host}` has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = uri.path();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    stream.take(256).read_to_end(&mut head)?;
    status(&head).ok_or_else(|| anyhow::anyhow!("the answer is not HTTP"))
}

/// The status of a response's first line.
fn status(head: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(head.get(..12)?).ok()?;
    text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503 Service Unavailable\r\n"), Some(503));
        assert_eq!(status(b"SSH-2.0-OpenSSH"), None);
        assert_eq!(status(b"HTTP/1.1"), None);
    }
}
