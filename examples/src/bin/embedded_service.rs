//! A service of its own with the control plane in it: own routes, own users, our API nested under `/automation`.
//!
//! ```text
//! CAREERS_USERS=customer:ada:KEY1,staff:grace:KEY2,robots:fleet:KEY3 embedded_service --log careers.log
//! curl -H 'Authorization: Bearer KEY1' -d '{"posting":"https://jobs.example.com/1"}' -H 'content-type: application/json' \
//!   http://127.0.0.1:3300/applications
//! GH_WORKER_KEY=KEY3 scripted_worker --server-url http://127.0.0.1:3300/automation
//! ```
//!
//! Customers use the product's routes only. Staff may look at everything in `/automation`. Robots may register workers
//! there, which go on with the token that they get.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{FromRequestParts, Path as UrlPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use gh_adapters_http::api::{self, ApiConfig, Authenticate, Door, Limits, Metrics, Refusal};
use gh_adapters_http::callbacks::{Guard, HttpCallbackSender, SendLimits, ServiceKeys};
use gh_core::application::{BackgroundLoops, ControlPlane, Ports};
use gh_core::domain::code::ClientName;
use gh_core::domain::cost::PriceBook;
use gh_core::domain::ids::JobId;
use gh_core::domain::policy::Policy;
use gh_core::domain::rules::Rules;
use gh_core::memory::MemoryStore;
use gh_core::ports::clock::Clock;
use gh_core::ports::outbox::Outbox;
use gh_core::ports::reader::Reader;
use gh_core::ports::store::Store;
use gh_examples::careers::{Application, Careers, CareersError, Posting, id_of};
use gh_examples::file_log::FileLogStore;
use gh_examples::machine::{MachineClock, MachineIds, random_key};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use url::Url;
use uuid::Uuid;

/// Applies to job postings for customers, with a GhostHands control plane inside.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, env = "CAREERS_LISTEN", default_value = "127.0.0.1:3300")]
    listen: SocketAddr,
    /// Everybody who may call, as ROLE:NAME:KEY with commas between; roles are customer, staff and robots.
    #[arg(long, env = "CAREERS_USERS", hide_env_values = true)]
    users: SecretString,
    /// The file in which everything is kept; without one it is gone when the service stops.
    #[arg(long, env = "CAREERS_LOG")]
    log: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let users = Arc::new(Users::parse(&options.users)?);
    let clock: Arc<dyn Clock> = Arc::new(MachineClock::start());
    let control_plane = match &options.log {
        Some(path) => control_plane(Arc::new(FileLogStore::new(path, Arc::clone(&clock), key_beside(path)?)), &clock)?,
        None => control_plane(Arc::new(MemoryStore::new(Arc::clone(&clock), random_key())), &clock)?,
    };
    let router = service(Arc::clone(&control_plane), users, clock);
    let listener = TcpListener::bind(options.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(serve(control_plane, listener, router).await?)
}

/// Puts a control plane together around a store.
fn control_plane<S>(store: Arc<S>, clock: &Arc<dyn Clock>) -> Result<Arc<ControlPlane>, Box<dyn Error>>
where
    S: Store + Reader + Outbox + 'static,
{
    let clock = Arc::clone(clock);
    let unix_seconds = Arc::new(move || clock.now().as_micros().div_euclid(1_000_000));
    let sender =
        HttpCallbackSender::new(Guard::default(), ServiceKeys::default(), SendLimits::default(), unix_seconds)?;
    let ports = Ports::alone(store, Arc::new(sender));
    let rules = Rules { policy: Arc::new(Policy::default()), prices: PriceBook::embedded(), ids: Arc::new(MachineIds) };
    Ok(Arc::new(ControlPlane::new(ports, rules)))
}

/// The product's own routes, our API beside them, and one layer around both that tells who calls.
fn service(control_plane: Arc<ControlPlane>, users: Arc<Users>, clock: Arc<dyn Clock>) -> Router {
    let api = api::router(
        Arc::clone(&control_plane),
        ApiConfig {
            auth: Arc::new(OurUsers),
            limits: Limits::default(),
            public_metrics: false,
            callback_guard: Guard::default(),
            ids: Arc::new(MachineIds),
            clock,
            metrics: Arc::new(Metrics::new()),
        },
    );
    Router::new()
        .route("/applications", post(apply))
        .route("/applications/{id}", get(application))
        .with_state(Careers::new(control_plane))
        .nest("/automation", api)
        .layer(from_fn_with_state(users, identify))
}

/// Serves until the process is asked to stop; then waiting claims are answered, and what is under way may end.
async fn serve(control_plane: Arc<ControlPlane>, listener: TcpListener, router: Router) -> io::Result<()> {
    let closing = Arc::clone(&control_plane);
    let stop = async move {
        if let Err(error) = gh_examples::asked_to_stop().await {
            eprintln!("signals cannot be listened for: {error}");
        }
        closing.close();
    };
    let serving = async {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop).await;
        // However serving ended, the loops end with it.
        control_plane.close();
        served
    };
    tokio::join!(serving, BackgroundLoops::ALL.run(&control_plane)).0
}

/// The secret behind worker tokens, in a file beside the log, so that workers are known after a restart.
fn key_beside(log: &Path) -> io::Result<[u8; 32]> {
    let path = log.with_extension("key");
    match File::options().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let key = random_key();
            file.write_all(&key)?;
            file.sync_all()?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let key = std::fs::read(path)?;
            key.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the key has not 32 bytes"))
        }
        Err(error) => Err(error),
    }
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Applies to postings.
    Customer,
    /// Looks after the service.
    Staff,
    /// Runs workers.
    Robots,
}

/// Somebody who calls; left in the request's extensions.
#[derive(Clone, Debug)]
struct User {
    name: String,
    role: Role,
}

/// Everybody, by the digest of their key.
#[derive(Debug)]
struct Users(HashMap<[u8; 32], User>);

/// The list of users is wrong; its text shows no key.
#[derive(Debug, thiserror::Error)]
#[error("user {0} of CAREERS_USERS is not ROLE:NAME:KEY with the role customer, staff or robots")]
struct NoUser(usize);

impl Users {
    fn parse(list: &SecretString) -> Result<Self, NoUser> {
        let user = |(index, text): (usize, &str)| {
            let mut parts = text.trim().splitn(3, ':');
            let role = match parts.next() {
                Some("customer") => Role::Customer,
                Some("staff") => Role::Staff,
                Some("robots") => Role::Robots,
                _ => return Err(NoUser(index + 1)),
            };
            match (parts.next(), parts.next()) {
                (Some(name), Some(key)) if !name.is_empty() && !key.is_empty() => {
                    Ok((Sha256::digest(key).into(), User { name: name.to_owned(), role }))
                }
                _ => Err(NoUser(index + 1)),
            }
        };
        list.expose_secret().split(',').enumerate().map(user).collect::<Result<_, _>>().map(Self)
    }

    fn caller(&self, headers: &HeaderMap) -> Option<&User> {
        let key = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        self.0.get::<[u8; 32]>(&Sha256::digest(key).into())
    }
}

/// The layer around everything: notes who calls. Whether that is enough is asked where the call goes.
async fn identify(State(users): State<Arc<Users>>, mut request: Request, next: Next) -> Response {
    if let Some(user) = users.caller(request.headers()).cloned() {
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

/// Lets our users in where the nested API asks, instead of keys of its own.
#[derive(Debug)]
struct OurUsers;

#[async_trait]
impl Authenticate for OurUsers {
    async fn authenticate(&self, request: &Parts, door: Door) -> Result<ClientName, Refusal> {
        let user = request.extensions.get::<User>().ok_or(Refusal::Unknown)?;
        let wanted = match door {
            Door::Registration => Role::Robots,
            Door::Clients | Door::Operations | Door::Documentation => Role::Staff,
        };
        if user.role == wanted { Ok(ClientName::new(&user.name)) } else { Err(Refusal::WrongKind) }
    }
}

/// The customer who calls one of the product's routes.
struct Customer(Uuid);

impl<S: Sync> FromRequestParts<S> for Customer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match parts.extensions.get::<User>() {
            Some(user) if user.role == Role::Customer => Ok(Self(id_of(&user.name))),
            Some(_) => Err(Failure(StatusCode::FORBIDDEN, "this is for customers".into())),
            None => Err(Failure(StatusCode::UNAUTHORIZED, "say who you are".into())),
        }
    }
}

/// An error as the product tells it.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<CareersError> for Failure {
    fn from(error: CareersError) -> Self {
        let status = match &error {
            CareersError::Unknown => StatusCode::NOT_FOUND,
            CareersError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CareersError::Later(source) => {
                tracing::warn!(error = source as &dyn Error, "a customer has to come again");
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self(status, error.to_string())
    }
}

/// What a customer sends to apply.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewApplication {
    posting: Url,
    tell: Option<Url>,
}

async fn apply(
    State(careers): State<Careers>,
    Customer(customer): Customer,
    Json(NewApplication { posting: url, tell }): Json<NewApplication>,
) -> Result<(StatusCode, Json<Application>), Failure> {
    let application = careers.apply_to(customer, &Posting { url, tell }).await?;
    Ok((StatusCode::CREATED, Json(application)))
}

async fn application(
    State(careers): State<Careers>,
    Customer(customer): Customer,
    UrlPath(id): UrlPath<JobId>,
) -> Result<Json<Application>, Failure> {
    Ok(Json(careers.application(customer, id).await?))
}
