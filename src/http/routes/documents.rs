//! The OpenAPI documents, and a page to read them and to try requests.
//!
//! All of it is compiled in, so the page works in networks without access to others.

use std::future::{Ready, ready};
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use crate::http::extract::{Path, json_response};
use crate::http::problem::{Code, Problem};
use crate::http::route::{Resource, undocumented};

/// Returns the rows of the documents, whose texts are those of OpenAPI 3.1 and 3.0.
pub(crate) fn resource(current: String, older: String) -> Resource {
    Resource::new("documents", "The OpenAPI documents, and a page to read them")
        .route(undocumented("/openapi.json", get(json_document(current))).compressed())
        .route(undocumented("/openapi-3.0.json", get(json_document(older))).compressed())
        .route(undocumented("/docs", get(redirect_to_docs)))
        .route(undocumented("/docs/", get(docs_index)).fails(&[Code::NotFound]))
        .route(undocumented("/docs/{*file}", get(docs_file)).compressed().fails(&[Code::NotFound]))
}

/// Makes a handler that responds with this JSON text.
fn json_document(text: String) -> impl Fn() -> Ready<Response> + Clone + Send + Sync + 'static {
    let bytes = Bytes::from(text);
    move || ready(json_response(bytes.clone()))
}

/// Redirects to the page.
async fn redirect_to_docs() -> Redirect {
    Redirect::permanent("/docs/")
}

/// Returns the page.
async fn docs_index() -> Response {
    file("")
}

/// Returns a file of the page.
async fn docs_file(Path(name): Path<String>) -> Response {
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
