//! The read-only pages: metrics, health, status, explanations and the journal. Nothing here can instruct.
//!
//! Whoever reaches the port may ask, as often as they like. A page of metrics is large, and what the coordinator is asked it answers
//! between its decisions; so few are made at a time, and on threads of their own: the two that serve this port also renew the lease
//! and keep the quorum. Whether this process works and takes part is told at once.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::from_fn,
    response::{IntoResponse, Response},
    routing::get,
};
use holdfast_policies::names::GuestName;
use serde::Deserialize;
use tokio::{net::TcpListener, sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{
    super::desk::{Answer, Denied, Desk, Request},
    ApiError, REQUEST_LIMIT, answers,
    serve::{Serving, serve},
};

/// Journal lines shown when nobody says how many.
const JOURNAL_LINES: usize = 100;

/// Questions of this port that the coordinator is asked at once. People and scripts wait for one another for a moment.
pub(super) const QUESTIONS_AT_ONCE: usize = 2;

/// Pages of metrics that are made at once: two of the same moment say the same.
const METRICS_AT_ONCE: usize = 1;

/// Serves the read-only pages over TCP until the returned value is dropped.
///
/// # Errors
/// [`ApiError::Public`]
pub async fn serve_public(address: SocketAddr, desk: Arc<dyn Desk>) -> Result<Serving, ApiError> {
    let fail = |source| ApiError::Public { address, source };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/status", get(status))
        .route("/v1/guests/{guest}/explain", get(explain))
        .route("/v1/journal", get(journal))
        .fallback(no_page)
        .method_not_allowed_fallback(only_read)
        .layer(from_fn(answers::within_limit))
        .with_state(Arc::new(Pages::of(desk)));
    Ok(serve(listener, router, Some(bound)))
}

/// What is shown, and how much of it at once.
struct Pages {
    desk: Arc<dyn Desk>,
    questions: Arc<Semaphore>,
    metrics: Arc<Semaphore>,
}

impl Pages {
    fn of(desk: Arc<dyn Desk>) -> Self {
        let turns = |at_once| Arc::new(Semaphore::new(at_once));
        Self { desk, questions: turns(QUESTIONS_AT_ONCE), metrics: turns(METRICS_AT_ONCE) }
    }
}

type Asked = State<Arc<Pages>>;

async fn metrics(State(pages): Asked) -> Response {
    let Ok(turn) = Arc::clone(&pages.metrics).acquire_owned().await else { return unmade() };
    let desk = Arc::clone(&pages.desk);
    // The turn ends with the page, also when whoever asked for it has gone.
    let made = spawn_blocking(move || {
        let page = desk.metrics();
        drop(turn);
        page
    });
    match made.await {
        Ok(page) => ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response(),
        Err(_) => unmade(),
    }
}

/// Another page was asked for than there is.
async fn no_page() -> Response {
    answers::error(
        StatusCode::NOT_FOUND,
        "there is no such page, but /metrics, /healthz, /readyz, /v1/status, /v1/guests/GUEST/explain and /v1/journal?last=N",
    )
}

/// Something else was asked than to see a page.
async fn only_read() -> Response {
    answers::error(
        StatusCode::METHOD_NOT_ALLOWED,
        "pages are only read here (GET); for orders there is the command `holdfast`",
    )
}

/// Making a page has ended by a defect.
fn unmade() -> Response {
    answers::error(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made")
}

async fn healthz(State(pages): Asked) -> Response {
    health(pages.desk.alive())
}

async fn readyz(State(pages): Asked) -> Response {
    health(pages.desk.ready())
}

fn health(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn status(State(pages): Asked) -> Response {
    show(&pages, Request::Status).await
}

async fn explain(State(pages): Asked, guest: Result<Path<String>, PathRejection>) -> Response {
    let guest = match guest {
        Ok(Path(guest)) => GuestName::new(guest).map_err(|error| error.to_string()),
        Err(rejection) => Err(rejection.body_text()),
    };
    match guest {
        Ok(guest) => show(&pages, Request::Explain { guest }).await,
        Err(why) => answers::error(StatusCode::BAD_REQUEST, &why),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalQuery {
    last: Option<usize>,
}

async fn journal(State(pages): Asked, query: Result<Query<JournalQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(query)) => show(&pages, Request::Journal { last: query.last.unwrap_or(JOURNAL_LINES) }).await,
        Err(rejection) => answers::error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    }
}

async fn show(pages: &Pages, request: Request) -> Response {
    let Ok(turn) = Arc::clone(&pages.questions).acquire_owned().await else { return unmade() };
    let desk = Arc::clone(&pages.desk);
    // Whoever goes away gives no turn back: what was asked for them is being answered all the same.
    let shown = tokio::spawn(async move {
        let answered = timeout(REQUEST_LIMIT, desk.ask(request)).await;
        let made = spawn_blocking(move || {
            let response = answered.map_or_else(|_| answers::too_late(), respond);
            drop(turn);
            response
        });
        made.await.unwrap_or_else(|_| unmade())
    });
    shown.await.unwrap_or_else(|_| unmade())
}

/// The status of thousands of guests takes a while to write.
fn respond(answered: Result<Answer, Denied>) -> Response {
    match answered {
        Ok(answer) => Json(answer.without_consoles().content()).into_response(),
        Err(denied) => answers::error(answers::code(&denied), &denied.to_string()),
    }
}
