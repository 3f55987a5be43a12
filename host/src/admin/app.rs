//! What every request goes through, in this order: the guard against web pages, who is calling, how often, the
//! router with the role each route needs, and at the end the form of the answer. A panic ends one request.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, HeaderName};
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::access::{Access, Caller};
use super::body::ReadWhole;
use super::denials::{By, Denials};
use super::document;
use super::metrics::Requests;
use super::operator::Operator;
use super::problem::Trouble;
use super::rate::{Client, Rates};
use super::seat::Seat;
use crate::config::{HttpConfig, HttpLimits, Role};

/// Uploads received at once; further ones wait.
const UPLOADS: usize = 4;

/// What the handlers share.
pub(super) struct App {
    pub(super) seat: Seat,
    pub(super) limits: HttpLimits,
    /// The folder of uploads under way.
    pub(super) folder: PathBuf,
    pub(super) uploads: Semaphore,
    pub(super) requests: Requests,
    access: Access,
    // Both are taken for a few instructions, never across an await.
    rates: Mutex<Rates>,
    denials: Mutex<Denials>,
}

/// The API of a host, ready to answer.
#[derive(Clone)]
pub(super) struct Service {
    app: Arc<App>,
    router: Router,
}

/// Who is calling, as far as the request says; a route decides whether that is enough.
#[derive(Clone)]
struct Known(Result<Caller, Trouble>);

impl Service {
    pub(super) fn new(config: &HttpConfig, folder: PathBuf, seat: Seat) -> Self {
        let per_second = f64::from(config.limits.requests_per_second);
        let app = Arc::new(App {
            seat,
            limits: config.limits,
            folder,
            uploads: Semaphore::new(UPLOADS),
            requests: Requests::default(),
            access: Access::new(config),
            rates: Mutex::new(Rates::new(per_second)),
            denials: Mutex::new(Denials::default()),
        });
        let (router, _) = document::routes(&app);
        let router = router
            .fallback(no_such_path)
            .method_not_allowed_fallback(no_such_method)
            .with_state(app.clone());
        Self { app, router }
    }

    /// Answers a request of the client at `peer`.
    pub(super) async fn answer(
        self,
        peer: IpAddr,
        request: Request,
    ) -> Result<Response, Infallible> {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let whole = request.extensions().get::<ReadWhole>().cloned();
        let app = self.app.clone();
        let outcome = AssertUnwindSafe(self.route(peer, request))
            .catch_unwind()
            .await;
        let response = outcome.unwrap_or_else(|_| {
            // The panic's text and place were printed by the panic hook.
            tracing::error!(%method, path, "a request panicked");
            Trouble::bug().into_response()
        });
        let mut response = finished(response, &path);
        if whole.is_some_and(|whole| !whole.get()) {
            // What is left of the body stands where the next request would begin; said, so that no client sends
            // another one here.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        let route = response.extensions().get::<MatchedPath>();
        app.requests.count(&method, route, response.status());
        tracing::debug!(%method, path, status = response.status().as_u16(), client = %peer, "answered");
        Ok(response)
    }

    async fn route(self, peer: IpAddr, mut request: Request) -> Response {
        let app = &self.app;
        if let Err(trouble) = app.access.guard(request.uri(), request.headers()) {
            let what = asked(&request);
            app.denied(By::Stranger(peer), what, &trouble).await;
            return trouble.into_response();
        }
        let caller = app.access.caller(request.headers());
        let client = match &caller {
            Ok(caller) if caller.name != "local" => Client::Token(caller.name.clone()),
            _ => Client::at(peer),
        };
        let is_probe = matches!(request.uri().path(), "/live" | "/ready");
        if !is_probe && let Err(wait) = app.rate(client) {
            let detail = "more requests than limits.requests_per_second of [http] allows a client";
            let status = StatusCode::TOO_MANY_REQUESTS;
            let seconds = wait.as_secs() + 1;
            return Trouble::later(status, "too-many", "take the request", detail, seconds)
                .into_response();
        }
        request.extensions_mut().insert(Known(caller));
        request.extensions_mut().insert(Peer(peer));
        match self.router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// The client's address.
#[derive(Clone, Copy)]
struct Peer(IpAddr);

impl App {
    /// The host behind the API.
    ///
    /// # Errors
    /// It is not there yet.
    pub(super) fn operator(&self) -> Result<&dyn Operator, Trouble> {
        self.seat.operator()
    }

    fn rate(&self, client: Client) -> Result<(), Duration> {
        self.rates.lock().take(client, Instant::now())
    }

    /// Tells the audit trail about a denial, unless there were too many of this one's.
    async fn denied(&self, by: By, what: String, why: &Trouble) {
        let name = by.to_string();
        if self.denials.lock().take(by, Instant::now()) {
            self.seat.denied(&name, &what, why.detail()).await;
        } else {
            tracing::debug!(
                by = name,
                what,
                "a denial was not audited, there are too many"
            );
        }
    }
}

/// A request in the words of the audit trail.
fn asked(request: &Request) -> String {
    format!("{} {}", request.method(), request.uri().path())
}

/// Lets a request through to a route that needs no role.
pub(super) async fn open(mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    if let Some(Known(Ok(caller))) = request.extensions_mut().remove::<Known>() {
        request.extensions_mut().insert(caller);
    }
    labelled(next.run(request).await, route)
}

/// Lets a request through whose caller has the role, and leaves the caller for the handler.
pub(super) async fn need(
    State((app, role)): State<(Arc<App>, Role)>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let known = request.extensions_mut().remove::<Known>();
    let peer = request.extensions().get::<Peer>().copied();
    let refused = match known {
        Some(Known(Ok(caller))) if caller.role >= role => {
            request.extensions_mut().insert(caller);
            return labelled(next.run(request).await, route);
        }
        Some(Known(Ok(caller))) => {
            let detail = format!(
                "the token {:?} has the role {}, this needs {role}",
                caller.name, caller.role
            );
            let hint = format!("use a token whose role is {role}");
            let trouble = Trouble::forbidden("role", detail).hint(hint);
            (By::Token(caller.name), trouble)
        }
        Some(Known(Err(trouble))) => {
            let Peer(peer) = peer.expect("`route` leaves both");
            (By::Stranger(peer), trouble)
        }
        None => return labelled(Trouble::bug().into_response(), route),
    };
    let (by, trouble) = refused;
    app.denied(by, asked(&request), &trouble).await;
    labelled(trouble.into_response(), route)
}

/// Lets a request through once the host is there: before its body is read, which may be large.
pub(super) async fn there(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.operator() {
        Ok(_) => next.run(request).await,
        Err(trouble) => trouble.into_response(),
    }
}

/// Remembers the route for the request counter.
fn labelled(mut response: Response, route: Option<MatchedPath>) -> Response {
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

async fn no_such_path(request: Request) -> Trouble {
    let detail = format!("there is nothing at {:?}", request.uri().path());
    Trouble::not_found("find the path", detail).hint("/openapi.json lists every path")
}

/// The router adds `Allow` to the answer after this.
async fn no_such_method() -> Trouble {
    Trouble::method(None)
}

/// Gives an answer its last form: the body of a trouble, and the headers that all answers have.
fn finished(mut response: Response, path: &str) -> Response {
    if let Some(trouble) = response.extensions_mut().remove::<Trouble>() {
        let route = response.extensions_mut().remove::<MatchedPath>();
        let allow = response.headers().get(ALLOW);
        let trouble = if trouble.status() == StatusCode::METHOD_NOT_ALLOWED {
            Trouble::method(allow)
        } else {
            trouble
        };
        response = labelled(trouble.response(path), route);
    }
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderName::from_static("x-content-type-options");
    headers.insert(nosniff, HeaderValue::from_static("nosniff"));
    response
}
