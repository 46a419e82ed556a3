//! Answers as HTTP: status codes, JSON bodies, and the time limit that all requests have.

use axum::{
    Json,
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::{super::desk::Denied, REQUEST_LIMIT};

/// `{"error": …}` under a status code.
pub(super) fn error(code: StatusCode, why: &str) -> Response {
    (code, Json(serde_json::json!({ "error": why }))).into_response()
}

/// The status code of a denial.
pub(super) fn code(denied: &Denied) -> StatusCode {
    match denied {
        Denied::Findings(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Denied::Refused(_) => StatusCode::CONFLICT,
        Denied::NoLeader(_) => StatusCode::SERVICE_UNAVAILABLE,
        Denied::Unknown(_) => StatusCode::NOT_FOUND,
        Denied::Elsewhere { .. } => StatusCode::MISDIRECTED_REQUEST,
    }
}

/// Gives every request its time, reading its body included.
pub(super) async fn within_limit(request: Request, next: Next) -> Response {
    match timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => too_late(),
    }
}

/// There was no answer in the time that a request has.
pub(super) fn too_late() -> Response {
    error(StatusCode::GATEWAY_TIMEOUT, "there was no answer in time; an instruction may still be carried out")
}
