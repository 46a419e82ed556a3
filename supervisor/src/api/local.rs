//! The local socket: whoever may open it, which is root, may ask and instruct.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::StatusCode,
    middleware::from_fn,
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::net::{UnixListener, UnixStream};

use super::{
    super::desk::{Desk, Request},
    ApiError, REQUEST_BYTES_MAX, answers,
    serve::{Serving, serve},
};

/// Serves `POST /v1/ask` on a Unix socket of mode 0600, until the returned value is dropped. A socket that nobody
/// answers on is replaced.
///
/// # Errors
/// [`ApiError`]
pub async fn serve_local(socket: &Path, desk: Arc<dyn Desk>) -> Result<Serving, ApiError> {
    clear(socket).await?;
    let listener = listen(socket).map_err(|source| ApiError::Local { socket: socket.to_owned(), source })?;
    let router = Router::new()
        .route("/v1/ask", post(ask))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(from_fn(answers::within_limit))
        .with_state(desk);
    Ok(serve(listener, router, None))
}

/// Removes the socket of a supervisor that is gone, and nothing else.
async fn clear(socket: &Path) -> Result<(), ApiError> {
    let fail = |source| ApiError::Local { socket: socket.to_owned(), source };
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ApiError::InTheWay { path: socket.to_owned() }),
        Ok(_) => {}
    }
    match UnixStream::connect(socket).await {
        Ok(_) => Err(ApiError::Running { socket: socket.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(socket).map_err(fail),
        Err(error) => Err(fail(error)),
    }
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn ask(State(desk): State<Arc<dyn Desk>>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return answers::error(rejection.status(), &rejection.body_text()),
    };
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return answers::error(StatusCode::BAD_REQUEST, &format!("this is not a request: {error}")),
    };
    match desk.ask(request).await {
        Ok(answer) => Json(answer).into_response(),
        Err(denied) => (answers::code(&denied), Json(denied)).into_response(),
    }
}
