//! /metrics: ready-made bytes.

use axum::response::Response;

use crate::http::problem::Problem;

pub(crate) async fn scrape() -> Result<Response, Problem> {
    Err(Problem::starting())
}
