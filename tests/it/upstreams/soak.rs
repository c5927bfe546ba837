//! What a long time of everything at once does to the process.

use super::rebuild;
use crate::support::gateway::Gateway;
use crate::support::load::Load;
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::origin_process::OriginProcess;
use crate::support::raw::RawClient;
use crate::support::sized;
use std::time::{Duration, Instant};

/// What the process holds at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    resident: f64,
    descriptors: usize,
}

const MIB: f64 = 1024.0 * 1024.0;

/// Bytes per second, by least squares.
fn slope(samples: &[Sample]) -> f64 {
    let count = f64::from(u32::try_from(samples.len()).unwrap());
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|s| s.seconds), mean(|s| s.resident));
    let over: f64 = samples.iter().map(|s| (s.seconds - x) * (s.resident - y)).sum();
    let under: f64 = samples.iter().map(|s| (s.seconds - x).powi(2)).sum();
    over / under
}

/// `make soak` runs it for minutes.
#[tokio::test]
async fn soak_a_mixed_load_with_dying_endpoints_and_reloads_leaks_nothing() {
    let mut dying = OriginProcess::start("dying").await;
    let (steady, odd) = (OriginProcess::start("steady").await, Origin::named("odd").await);
    odd.on("/half", Behaviour::Half { promised: 1000, sent: 10 })
        .on("/reset", Behaviour::Reset)
        .on("/ticks", Behaviour::Ticks { count: 5, every: Duration::from_millis(20) })
        .on("/big", Behaviour::Answer(Reply::new(200).body(vec![b'x'; 300_000])))
        .on("/slow", Behaviour::After(Duration::from_millis(100), Reply::text("ok")))
        .close_after(50);
    let conf = "[ejection]\nbase = '200ms'\nmax = '400ms'";
    let mut gateway = Gateway::before(&[dying.address(), steady.address()], conf)
        .upstream_with(
            "odd",
            &[odd.address()],
            "[timeouts]\nper_try = '1s'\n[ejection]\nfailures = 1000",
        )
        .route("odd", "path = '/odd/*'\nauth = 'none'\nupstream = 'odd'\nstrip_prefix = '/odd'")
        .route("keyed", "path = '/keyed'\nauth = ['api_key']\nupstream = 'orders'")
        .plan("basic", "1000/s")
        .key("k", "basic")
        .tls_listener("secure")
        .start()
        .await;
    let (plain, secure) = (gateway.address(), gateway.listener("secure"));
    let load = |path: &str, rate| Load::on(plain).get(path).connections(4).rate(rate);
    let key = gateway.key("k");
    let good = [
        load("/", 60),
        load("/", 20).fresh(),
        Load::on(secure).http2(gateway.trust()).connections(4).rate(30),
        load("/keyed", 20).header("x-api-key", &key),
        load("/odd/ticks", 10),
        load("/odd/big", 10),
        load("/odd/slow", 20),
    ];
    let good = good.map(Load::start);
    let bad =
        [load("/odd/half", 5), load("/odd/reset", 5), load("/nowhere-else", 5).post("/", b"x")];
    let bad = bad.map(Load::start);
    let span = sized(Duration::from_secs(8), Duration::from_secs(300));
    let mut samples = Vec::new();
    let began = Instant::now();
    while began.elapsed() < span {
        // Some leave early, some break the rules.
        for request in
            ["GET /odd/slow HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/9\r\n\r\n", "POST /"]
        {
            RawClient::connect(plain).await.send(request).await;
        }
        match samples.len() % 8 {
            2 => dying.kill(),
            4 => dying.revive().await,
            6 => rebuild(&gateway, samples.len()).await,
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        samples.push(sample(&mut gateway, began));
    }
    for running in good {
        running.stop().await.expect_only(200);
    }
    for running in bad {
        assert!(running.stop().await.total() > 0);
    }
    let half = &samples[samples.len() / 2..];
    let growth = slope(half) * 600.0 / MIB;
    let (first, last) = (samples.first().unwrap(), samples.last().unwrap());
    eprintln!(
        "{} samples in {span:?}: {:.1} to {:.1} MiB, {growth:.2} MiB in ten minutes; {} to {} descriptors",
        samples.len(),
        first.resident / MIB,
        last.resident / MIB,
        first.descriptors,
        last.descriptors,
    );
    // A short run sees caches fill; only a long one tells a leak from that.
    assert!(growth <= sized(f64::INFINITY, 4.0), "{growth} MiB in ten minutes");
    assert!(last.resident < 150.0 * MIB, "{last:?}");
    // Everybody has left: what remains are listeners, the store and kept upstream connections.
    let idle = crate::support::eventually("descriptors to be given back", || {
        let now = sample(&mut gateway, began).descriptors;
        (now < 80).then_some(now)
    })
    .await;
    eprintln!("{idle} descriptors at rest");
}

fn sample(gateway: &mut Gateway, began: Instant) -> Sample {
    let process = gateway.process();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let resident = process.resident() as f64;
    let descriptors = process.descriptors();
    Sample { seconds: began.elapsed().as_secs_f64(), resident, descriptors }
}
