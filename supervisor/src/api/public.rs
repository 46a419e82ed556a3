//! The read-only pages: metrics, health, status, explanations and the journal. Nothing here can instruct.

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
use tokio::net::TcpListener;

use super::{
    super::desk::{Desk, Request},
    ApiError, answers,
    serve::{Serving, serve},
};

/// Journal lines shown when nobody says how many.
const JOURNAL_LINES: usize = 100;

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
        .layer(from_fn(answers::within_limit))
        .with_state(desk);
    Ok(serve(listener, router, Some(bound)))
}

type Asked = State<Arc<dyn Desk>>;

async fn metrics(State(desk): Asked) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], desk.metrics()).into_response()
}

async fn healthz(State(desk): Asked) -> Response {
    health(desk.alive())
}

async fn readyz(State(desk): Asked) -> Response {
    health(desk.ready())
}

fn health(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn status(State(desk): Asked) -> Response {
    show(&desk, Request::Status).await
}

async fn explain(State(desk): Asked, guest: Result<Path<String>, PathRejection>) -> Response {
    let guest = match guest {
        Ok(Path(guest)) => GuestName::new(guest).map_err(|error| error.to_string()),
        Err(rejection) => Err(rejection.body_text()),
    };
    match guest {
        Ok(guest) => show(&desk, Request::Explain { guest }).await,
        Err(why) => answers::error(StatusCode::BAD_REQUEST, &why),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalQuery {
    last: Option<usize>,
}

async fn journal(State(desk): Asked, query: Result<Query<JournalQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(query)) => show(&desk, Request::Journal { last: query.last.unwrap_or(JOURNAL_LINES) }).await,
        Err(rejection) => answers::error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    }
}

async fn show(desk: &Arc<dyn Desk>, request: Request) -> Response {
    match desk.ask(request).await {
        Ok(answer) => Json(answer.without_consoles().content()).into_response(),
        Err(denied) => answers::error(answers::code(&denied), &denied.to_string()),
    }
}
