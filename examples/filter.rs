//! A gateway of one's own, with a filter: it turns away the addresses of a list, signs what it passes
//! on, and shows clients nothing of what upstreams say of themselves.
//!
//! An upstream that knows the secret can tell that a request came through this gateway, when, and for
//! whom:
//!
//! ```text
//! X-Signature: t=1764060000, v1=<hex of HMAC-SHA-256(secret, "1764060000\nGET\n/orders?page=2\n<consumer id>")>
//! ```
//!
//! It has all subcommands of `gateway`, and reads `banned.txt` (an address or a network on each line)
//! and `signing.key` from the folder it is started in:
//!
//! ```sh
//! head -c 32 /dev/urandom > signing.key && echo 192.0.2.0/24 > banned.txt
//! cargo run --example filter -- --conf conf run
//! ```

use anyhow::Context as _;
use datahub_gateway::filter::{Admitted, Filter, Flow, Refusal, Request, Response};
use datahub_gateway::http::header::SERVER;
use datahub_gateway::http::{HeaderName, HeaderValue, StatusCode};
use datahub_gateway::{Builder, Gateway};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ipnet::IpNet;
use sha2::Sha256;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::process::ExitCode;

const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
const SIGNED_AT: HeaderName = HeaderName::from_static("x-signed-at");
const POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");

/// What the filter knows of the world: read once, because a request never waits for a file.
struct Partner {
    banned: Vec<IpNet>,
    secret: Hmac<Sha256>,
}

/// What it knows of one request: when it was signed, if it was.
#[derive(Default)]
struct Signed {
    at: Option<u64>,
}

impl Partner {
    fn load() -> anyhow::Result<Self> {
        let list = fs::read_to_string("banned.txt").context("banned.txt cannot be read")?;
        let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
        let banned = lines.map(network).collect::<anyhow::Result<_>>()?;
        let secret = fs::read("signing.key").context("signing.key cannot be read")?;
        anyhow::ensure!(secret.len() >= 32, "signing.key has fewer than 32 bytes");
        Ok(Self { banned, secret: Hmac::new_from_slice(&secret)? })
    }

    fn sign(&self, request: &Request<'_>, consumer: &str, at: u64) -> String {
        let mut mac = self.secret.clone();
        let (path, query) = (request.path(), request.query());
        let mark = if query.is_some() { "?" } else { "" };
        let query = query.unwrap_or_default();
        mac.update(
            format!("{at}\n{}\n{path}{mark}{query}\n{consumer}", request.method()).as_bytes(),
        );
        mac.finalize().into_bytes().iter().fold(format!("t={at}, v1="), |mut text, byte| {
            // Writing to a string does not fail.
            write!(text, "{byte:02x}").ok();
            text
        })
    }
}

/// An address, or a network.
fn network(line: &str) -> anyhow::Result<IpNet> {
    let address = line.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| line.parse()).with_context(|| format!("`{line}` is not an address"))
}

impl Filter for Partner {
    type State = Signed;

    fn name(&self) -> &'static str {
        "partner"
    }

    async fn on_request(&self, request: &Request<'_>, _: &mut Signed) -> Result<(), Refusal> {
        let client = request.client();
        if self.banned.iter().any(|network| network.contains(&client)) {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "banned"));
        }
        Ok(())
    }

    async fn on_admitted(
        &self,
        admitted: &mut Admitted<'_>,
        signed: &mut Signed,
    ) -> Result<Flow, Refusal> {
        let at = admitted.request().began_at().as_secs();
        let consumer = admitted.caller().map_or("", |caller| caller.id());
        let signature = self.sign(admitted.request(), consumer, at);
        let value = HeaderValue::try_from(signature)
            .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "unsigned"))?;
        // Whatever a client sends under this name is replaced.
        admitted.set_header(SIGNATURE, value)?;
        signed.at = Some(at);
        Ok(Flow::Continue)
    }

    async fn on_response(
        &self,
        response: &mut Response<'_>,
        signed: &mut Signed,
    ) -> Result<(), Refusal> {
        response.remove_header(SERVER)?;
        response.remove_header(POWERED_BY)?;
        if let Some(at) = signed.at {
            response.set_header(SIGNED_AT, HeaderValue::from(at))?;
        }
        Ok(())
    }
}

/// The gateway with the filter; more filters would be more lines, in their order.
pub(crate) fn gateway() -> anyhow::Result<Builder> {
    Ok(Gateway::builder().filter(Partner::load()?))
}

fn main() -> anyhow::Result<ExitCode> {
    Ok(gateway()?.command_line())
}
