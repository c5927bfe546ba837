//! A fleet that is described in a line or two, and started whole.

use crate::postgres_lab::{Authority, Server, Setup, USER};
use crate::redis_lab::RedisCluster;
use crate::support::client::{Answer, Client, Request};
use crate::support::credential::{id_of, now};
use crate::support::gateway::{self, Folder, Gateway, succeed};
use crate::support::{PATIENCE, eventually_async};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

/// What every task is given besides the addresses.
pub(crate) const ADMIN_TOKEN: &str = "fleet-only-admin-token-fleet-only-admin-token";
pub(crate) const PEPPER: &str = "fleet-only-pepper-fleet-only-pepper-fleet-only-pepper";

/// What PostgreSQL asks for when it is secure.
const PASSWORD: &str = "pg-pass-w0rd";
/// Files with the authorities.
pub(crate) const POSTGRES_CA: &str = "postgres.pem";
pub(crate) const REDIS_CA: &str = "redis.pem";

/// How often a task is asked whether it has changed its mind.
const LOOK: Duration = Duration::from_millis(10);

/// Tests that look at times run one after the other.
static TURN: Mutex<()> = Mutex::const_new(());

type Describe = Arc<dyn Fn(gateway::Builder) -> gateway::Builder + Send + Sync>;

/// A fleet that is being described.
#[derive(Clone)]
pub(crate) struct Builder {
    tasks: usize,
    follower: Follower,
    redis: bool,
    secure: bool,
    describe: Describe,
}

/// What the second PostgreSQL is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follower {
    None,
    /// Look-ups go to it first.
    Read,
    /// It takes over when the primary is gone: the URL names both.
    Standby,
}

/// A fleet that runs. What is first here ends first.
pub(crate) struct Fleet {
    pub(crate) tasks: Vec<Gateway>,
    /// A folder with the same configuration, in which no gateway runs.
    pub(crate) operator: Folder,
    redis: Option<RedisCluster>,
    /// Where the authorities stand that the tasks trust, if the servers speak TLS.
    pub(crate) trusted: Option<tempfile::TempDir>,
    follower: Option<Server>,
    pub(crate) primary: Server,
    pub(crate) database: String,
    described: Builder,
    urls: Vec<(&'static str, String)>,
    _turn: MutexGuard<'static, ()>,
}

impl Builder {
    /// So many tasks; five unless told.
    pub(crate) fn tasks(self, tasks: usize) -> Self {
        Self { tasks, ..self }
    }

    /// A replica that look-ups go to.
    pub(crate) fn replica(self) -> Self {
        Self { follower: Follower::Read, ..self }
    }

    /// A replica that can take over.
    pub(crate) fn standby(self) -> Self {
        Self { follower: Follower::Standby, ..self }
    }

    /// A Redis Cluster.
    pub(crate) fn redis(self) -> Self {
        Self { redis: true, ..self }
    }

    /// The servers speak TLS only, under authorities of their own, and ask for passwords.
    pub(crate) fn secure(self) -> Self {
        Self { secure: true, ..self }
    }

    /// More of every task's configuration.
    pub(crate) fn describe(
        self,
        more: impl Fn(gateway::Builder) -> gateway::Builder + Send + Sync + 'static,
    ) -> Self {
        let before = self.describe;
        Self { describe: Arc::new(move |builder| more(before(builder))), ..self }
    }

    /// Starts the servers, and no task yet; the tables are there.
    pub(crate) async fn prepare(self) -> Fleet {
        let fleet = self.servers().await;
        succeed(&fleet.operator.cli(&["migrate"]));
        fleet
    }

    /// Starts the servers, whose PostgreSQL has no tables.
    pub(crate) async fn servers(self) -> Fleet {
        let turn = TURN.lock().await;
        let setup = match self.secure {
            true => Setup { tls: Some(Authority::new()), password: Some(PASSWORD.to_owned()) },
            false => Setup::default(),
        };
        let (primary, redis) = std::thread::scope(|scope| {
            let cluster =
                if self.secure { RedisCluster::start_secure } else { RedisCluster::start };
            let redis = self.redis.then(|| scope.spawn(cluster));
            let primary = Server::start(&setup);
            (primary, redis.map(|starting| starting.join().unwrap()))
        });
        let trusted = setup.tls.map(|authority| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(POSTGRES_CA), authority.pem()).unwrap();
            let ca = redis.as_ref().and_then(RedisCluster::ca).unwrap();
            std::fs::write(folder.path().join(REDIS_CA), ca).unwrap();
            folder
        });
        let database = primary.database();
        let follower = (self.follower != Follower::None).then(|| primary.replica());
        let urls = self.urls(&primary, follower.as_ref(), redis.as_ref(), &database);
        let trust = trusted.as_ref().map(tempfile::TempDir::path);
        let operator = self.folder(&urls, trust);
        Fleet {
            tasks: Vec::new(),
            operator,
            redis,
            trusted,
            follower,
            primary,
            database,
            described: self,
            urls,
            _turn: turn,
        }
    }

    /// Starts everything and waits until all tasks are ready.
    pub(crate) async fn start(self) -> Fleet {
        let mut fleet = self.prepare().await;
        fleet.open().await;
        fleet
    }

    /// Where the servers are, as the environment says it.
    fn urls(
        &self,
        primary: &Server,
        follower: Option<&Server>,
        redis: Option<&RedisCluster>,
        database: &str,
    ) -> Vec<(&'static str, String)> {
        let mut urls = vec![("DATABASE_URL", primary.url(database))];
        match (self.follower, follower) {
            (Follower::Read, Some(replica)) => {
                urls.push(("DATABASE_REPLICA_URL", replica.url(database)));
            }
            (Follower::Standby, Some(standby)) => {
                let (one, other) = (primary.address(), standby.address());
                urls[0].1 = format!("postgres://{USER}@{one},{other}/{database}");
            }
            _ => {}
        }
        urls.extend(redis.map(|redis| ("REDIS_URL", redis.url())));
        urls
    }

    fn folder(&self, urls: &[(&'static str, String)], trusted: Option<&Path>) -> Folder {
        let tasks = self.tasks;
        let mut described = Gateway::builder()
            .toml(&format!("workers = 1\n[fleet]\nexpected = {tasks}"))
            .env("API_KEY_PEPPER", PEPPER)
            .env("ADMIN_TOKEN", ADMIN_TOKEN)
            .route("all", &answering("/*", ""))
            .plan_with("free", "[limits.requests]\nrate = '100000/s'\nscope = 'task'");
        for (name, url) in urls {
            described = described.env(name, url);
        }
        if let Some(folder) = trusted {
            let (postgres, redis) = (folder.join(POSTGRES_CA), folder.join(REDIS_CA));
            described = described
                .toml(&format!("[store.postgres]\nca = {postgres:?}\n[redis]\nca = {redis:?}"));
        }
        (self.describe)(described).folder()
    }
}

/// The body of a route for callers with a key or a token that answers `ok` itself.
pub(crate) fn answering(path: &str, more: &str) -> String {
    format!(
        "path = {path:?}\nauth = [\"api_key\", \"jwt\"]\n\
         reply = {{ status = 200, body = \"ok\" }}\n{more}\n"
    )
}

/// Who asks.
pub(crate) enum Caller {
    /// With an API key.
    Key(String),
    /// With a token.
    Token(String),
}

impl Caller {
    /// With a token of `subject` that has this id, issued a minute ago.
    pub(crate) fn token(subject: &str, id: &str) -> Self {
        let claims = json!({ "sub": subject, "jti": id, "iat": now() - 60, "exp": now() + 3600 });
        Self::Token(gateway::sign_jwt(&claims))
    }

    /// The key or the token.
    pub(crate) fn plain(&self) -> &str {
        match self {
            Self::Key(plain) | Self::Token(plain) => plain,
        }
    }

    /// The field that it sends.
    pub(crate) fn field(&self) -> (&'static str, String) {
        match self {
            Self::Key(key) => ("x-api-key", key.clone()),
            Self::Token(token) => ("authorization", format!("Bearer {token}")),
        }
    }

    /// Its request to a task.
    pub(crate) fn ask<'g>(&self, task: &'g Gateway, path: &str) -> Request<'g> {
        let (name, value) = self.field();
        task.get(path).header(name, &value)
    }
}

impl Fleet {
    /// Five tasks on one PostgreSQL. A caller on the plan `free` may do what it wants.
    pub(crate) fn builder() -> Builder {
        Builder {
            tasks: 5,
            follower: Follower::None,
            redis: false,
            secure: false,
            describe: Arc::new(|builder| builder),
        }
    }

    /// A folder for one more task.
    pub(crate) fn folder(&self) -> Folder {
        let trusted = self.trusted.as_ref().map(tempfile::TempDir::path);
        self.described.folder(&self.urls, trusted)
    }

    /// Starts the tasks.
    pub(crate) async fn open(&mut self) {
        let folders: Vec<_> = (0..self.described.tasks).map(|_| self.folder()).collect();
        self.tasks = join_all(folders.into_iter().map(Folder::start)).await;
    }

    /// Starts one more task.
    pub(crate) async fn join(&mut self) -> &Gateway {
        let task = self.folder().start().await;
        self.tasks.push(task);
        self.tasks.last().unwrap()
    }

    /// The second PostgreSQL.
    pub(crate) fn follower(&self) -> &Server {
        self.follower.as_ref().unwrap()
    }

    /// As [`Fleet::follower`], to be promoted.
    pub(crate) fn follower_mut(&mut self) -> &mut Server {
        self.follower.as_mut().unwrap()
    }

    pub(crate) fn redis(&self) -> &RedisCluster {
        self.redis.as_ref().unwrap()
    }

    pub(crate) fn redis_mut(&mut self) -> &mut RedisCluster {
        self.redis.as_mut().unwrap()
    }

    /// Runs a command of the program beside the fleet.
    pub(crate) fn cli(&self, line: &str) -> Output {
        self.operator.cli(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Asks the admin API of a task.
    pub(crate) async fn api(
        &self,
        task: usize,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        api(&self.tasks[task], method, path, body).await
    }

    /// What the admin API of a task has written: it must have.
    #[track_caller]
    pub(crate) fn write(
        &self,
        task: usize,
        method: &str,
        path: &str,
        body: &Value,
    ) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        let asked = self.api(task, method, path, Some(body));
        let what = format!("{method} {path} at {caller}");
        async move {
            let answer = asked.await;
            assert!((200..300).contains(&answer.status), "{what}: {}", answer.text());
            if answer.body.is_empty() { Value::Null } else { answer.json() }
        }
    }

    /// Adds a consumer.
    pub(crate) async fn consumer(&self, task: usize, name: &str, plan: &str) {
        let body = json!({ "username": name, "plan": plan });
        self.write(task, "POST", "/v1/consumers", &body).await;
    }

    /// A new key of a consumer.
    pub(crate) async fn key(&self, task: usize, consumer: &str) -> Caller {
        let path = format!("/v1/consumers/{consumer}/keys");
        let issued = self.write(task, "POST", &path, &json!({})).await;
        Caller::Key(issued["key"].as_str().unwrap().to_owned())
    }

    /// Revokes a key.
    pub(crate) async fn revoke(&self, task: usize, key: &Caller) {
        let path = format!("/v1/keys/{}/revoke", id_of(key.plain()));
        self.write(task, "POST", &path, &json!({})).await;
    }

    /// Asks every task until its answer has this status: how long each took from `began`.
    pub(crate) async fn until_all(
        &self,
        began: Instant,
        status: u16,
        caller: &Caller,
        path: &str,
    ) -> Vec<Duration> {
        let asking = self.tasks.iter().enumerate().map(|(number, task)| async move {
            loop {
                let answer = caller.ask(task, path).send().await;
                if answer.status == status {
                    return began.elapsed();
                }
                let waited = began.elapsed();
                assert!(waited < PATIENCE, "task {number} still says {answer:?}");
                tokio::time::sleep(LOOK).await;
            }
        });
        join_all(asking).await
    }

    /// Every task answers with this status now.
    pub(crate) async fn expect_all(&self, status: u16, caller: &Caller, path: &str) {
        for (number, task) in self.tasks.iter().enumerate() {
            let answer = caller.ask(task, path).send().await;
            assert_eq!(answer.status, status, "task {number}: {answer:?}");
        }
    }

    /// Waits until the follower has all that the primary has.
    pub(crate) async fn caught_up(&self) {
        let at = self.primary.sql(&self.database, "SELECT pg_current_wal_lsn()");
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{at}'");
        let follower = self.follower();
        eventually_async("the replica to follow", async || {
            (follower.sql(&self.database, &question) == "t").then_some(())
        })
        .await;
    }
}

/// Asks the admin API of a task.
pub(crate) async fn api(task: &Gateway, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let client = Client::new(task.admin());
    let request = client.request(method, path).bearer(ADMIN_TOKEN);
    let request = match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string()),
        None => request,
    };
    request.send().await
}

/// What was measured, as one line of a table.
pub(crate) struct Figures(Vec<Duration>);

impl Figures {
    pub(crate) fn of(mut all: Vec<Duration>) -> Self {
        assert!(!all.is_empty(), "nothing was measured");
        all.sort_unstable();
        Self(all)
    }

    /// What `percent` of a hundred did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0[rank.max(1) - 1]
    }

    pub(crate) fn worst(&self) -> Duration {
        self.percentile(100)
    }

    /// Says it.
    pub(crate) fn tell(&self, what: &str) -> &Self {
        let [p50, p99, worst] = [50, 99, 100].map(|percent| self.percentile(percent).as_millis());
        println!("{what}: {} measured, p50 {p50} ms, p99 {p99} ms, worst {worst} ms", self.0.len());
        self
    }

    /// The promise of a revocation.
    #[track_caller]
    pub(crate) fn within(&self, p99: Duration, worst: Duration) {
        assert!(self.percentile(99) <= p99 && self.worst() <= worst, "{:?}", self.0);
    }
}
