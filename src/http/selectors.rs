//! The selectors of a request: parsed, and bounded before they are compiled.
//!
//! Invariant: regular expressions are compiled off the threads that serve connections.

use super::offload::offload;
use super::problem::Problem;
use super::state::AppState;
use crate::model::Invalid;
use crate::model::selector::{Selector, SelectorText};

/// Reads the selectors that are at `pointer` in the request.
///
/// # Errors
/// 400 for invalid ones, and for too many selectors or expressions.
pub(crate) async fn parse_selectors(
    texts: &[String],
    pointer: &'static str,
    state: &AppState,
) -> Result<Vec<Selector>, Problem> {
    let limits = &state.settings.limits;
    let (limit, regex_limit) = (limits.selectors, limits.selector_regexes);
    if texts.len() > limit {
        return Err(Problem::invalid(format!("a request has at most {limit} selectors")));
    }
    let invalid =
        move |i: usize, why: &Invalid| Problem::invalid_at(&format!("{pointer}/{i}"), why);
    let parse =
        |(i, text): (usize, &String)| SelectorText::parse(text).map_err(|why| invalid(i, &why));
    let parsed = texts.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    let regexes: usize = parsed.iter().map(SelectorText::regexes).sum();
    if regexes > regex_limit {
        return Err(Problem::invalid(format!(
            "a request has at most {regex_limit} regular expressions in all its selectors"
        )));
    }
    let compile = move || {
        let compile =
            |(i, text): (usize, SelectorText)| text.compile().map_err(|why| invalid(i, &why));
        parsed.into_iter().enumerate().map(compile).collect()
    };
    if regexes == 0 { compile() } else { offload("compiling selectors", compile).await? }
}
