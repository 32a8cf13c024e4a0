//! The OpenAPI documents, and the page to read and try them on.
//!
//! All of it is compiled in: the page works in networks that reach no other.

use std::future::{Ready, ready};
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use crate::http::extract::{Path, json_response};
use crate::http::problem::Problem;

/// Makes a handler that answers with this JSON text.
pub(crate) fn json_document(
    text: String,
) -> impl Fn() -> Ready<Response> + Clone + Send + Sync + 'static {
    let bytes = Bytes::from(text);
    move || ready(json_response(bytes.clone()))
}

/// Leads to the page.
pub(crate) async fn redirect_to_docs() -> Redirect {
    Redirect::permanent("/docs/")
}

/// Returns the page.
pub(crate) async fn docs_index() -> Response {
    file("")
}

/// Returns a file of the page.
pub(crate) async fn docs_file(Path(name): Path<String>) -> Response {
    file(&name)
}

static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/openapi.json")));

fn file(name: &str) -> Response {
    match utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => {
            let mut response = Response::new(Body::from(file.bytes.into_owned()));
            let headers = response.headers_mut();
            if let Ok(media) = HeaderValue::try_from(file.content_type) {
                headers.insert(CONTENT_TYPE, media);
            }
            if file.gzpipped {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Ok(None) => Problem::not_found("there is no such file").into_response(),
        Err(error) => {
            tracing::error!(cause = %error, "a file of the documentation can't be served");
            Problem::internal().into_response()
        }
    }
}
