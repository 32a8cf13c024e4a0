//! One row of the route table: a handler, what it asks of its callers, and how it may fail.
//!
//! Not the handlers, and not how a row is served: that is the router's. Invariant: every problem code that a request
//! of a route can end with is in the route's row; debug builds check each response against it.

use axum::routing::MethodRouter;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::schema::Schema;
use utoipa_axum::router::UtoipaMethodRouter;

use super::access::Scope;
use super::admission::RequestClass;
use super::problem::Code;
use super::state::AppState;

/// How the request of any route may end.
pub(crate) const EVERY_ROUTE: &[Code] =
    &[Code::InvalidRequest, Code::HeadTooLarge, Code::Internal, Code::RequestTimeout];

/// How the request of a route with a scope may end before its handler runs.
pub(crate) const WITH_SCOPE: &[Code] = &[
    Code::Unauthorized,
    Code::Forbidden,
    Code::HostRefused,
    Code::OriginRefused,
    Code::Overloaded,
];

/// How a request that reaches the store may end.
pub(crate) const WITH_STORE: &[Code] =
    &[Code::Starting, Code::StoreUnavailable, Code::StoreTimeout, Code::StoreThrottled];

/// How a request that writes may end, beside that.
pub(crate) const WITH_WRITE: &[Code] = &[Code::StorageFull];

/// How a request with a body may end.
pub(crate) const WITH_BODY: &[Code] =
    &[Code::MalformedBody, Code::BodyTimeout, Code::BodyTooLarge, Code::UnsupportedMediaType];

/// How a write that can carry a fence may end.
pub(crate) const WITH_FENCE: &[Code] = &[Code::FenceRefused];

/// One resource: its tag in the document, its routes, and the schemas that only it knows of.
pub(crate) struct Resource {
    pub(crate) tag: &'static str,
    pub(crate) description: &'static str,
    pub(crate) routes: Vec<Route>,
    /// Schemas that no body refers to.
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
    /// What the resource adds to problems.
    pub(crate) problem_members: Vec<ProblemMember>,
}

/// A member that a resource adds to some of its problems.
pub(crate) struct ProblemMember {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) schema_name: String,
}

impl Resource {
    /// Makes a resource without routes.
    pub(crate) fn new(tag: &'static str, description: &'static str) -> Self {
        let (routes, schemas, problem_members) = (Vec::new(), Vec::new(), Vec::new());
        Self { tag, description, routes, schemas, problem_members }
    }

    /// Adds a route.
    #[must_use]
    pub(crate) fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Adds a schema that only parameters refer to: these bring none along.
    #[must_use]
    pub(crate) fn schema<T: ToSchema>(mut self) -> Self {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        self
    }

    /// Declares a member of problems, with its schema.
    #[must_use]
    pub(crate) fn problem_member<T: ToSchema>(
        mut self,
        name: &'static str,
        description: &'static str,
    ) -> Self {
        let schema_name = T::name().into_owned();
        self.problem_members.push(ProblemMember { name, description, schema_name });
        self.schema::<T>()
    }
}

/// One row of the table.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// The path's template.
    pub(crate) path: String,
    pub(crate) handler: MethodRouter<AppState>,
    /// What the document says of it; `None` for routes that no client is generated for.
    pub(crate) documented: Option<Documented>,
    /// What a token must allow; `None` for routes that are open to everybody.
    pub(crate) scope: Option<Scope>,
    pub(crate) class: RequestClass,
    pub(crate) compressed: bool,
    pub(crate) takes_body: bool,
    /// Whether its handler reads the query. Any query of another route with a scope is refused.
    pub(crate) takes_query: bool,
    pub(crate) fenced: bool,
    /// The codes of this route alone; see [`Self::codes`] for all.
    pub(crate) own_codes: &'static [Code],
    uses_store: bool,
    writes: bool,
}

/// The part of a route that the document shows.
pub(crate) struct Documented {
    pub(crate) operation: Operation,
    /// The schemas of its bodies.
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
}

/// Makes a route that reads.
pub(crate) fn read(routes: UtoipaMethodRouter<AppState>) -> Route {
    Route { uses_store: true, ..Route::documented(routes, Some(Scope::Read)) }
}

/// Makes a route that writes.
pub(crate) fn write(routes: UtoipaMethodRouter<AppState>) -> Route {
    Route { writes: true, ..Route { scope: Some(Scope::Write), ..read(routes) } }
}

/// Makes a route for operators. It may write.
pub(crate) fn admin(routes: UtoipaMethodRouter<AppState>) -> Route {
    Route { scope: Some(Scope::Admin), ..write(routes) }
}

/// Makes a route that is open to everybody, and responds when the server is busy too.
pub(crate) fn open(routes: UtoipaMethodRouter<AppState>) -> Route {
    Route { class: RequestClass::Unlimited, ..Route::documented(routes, None) }
}

/// Makes a `GET` route that the document does not show, open to everybody.
pub(crate) fn undocumented(path: &str, handler: MethodRouter<AppState>) -> Route {
    Route { class: RequestClass::Unlimited, ..Route::new("GET", path.to_owned(), handler) }
}

impl Route {
    fn new(method: &'static str, path: String, handler: MethodRouter<AppState>) -> Self {
        Self {
            method,
            path,
            handler,
            documented: None,
            scope: None,
            class: RequestClass::Prompt,
            compressed: false,
            takes_body: false,
            takes_query: true,
            fenced: false,
            own_codes: &[],
            uses_store: false,
            writes: false,
        }
    }

    fn documented(routes: UtoipaMethodRouter<AppState>, scope: Option<Scope>) -> Self {
        let (schemas, paths, handler) = routes;
        let mut found = paths.paths.into_iter().flat_map(|(path, item)| {
            operations(item).map(move |(method, operation)| (method, path.clone(), operation))
        });
        let (Some((method, path, operation)), None) = (found.next(), found.next()) else {
            unreachable!("`routes!` was given one handler, which has one path and one method");
        };
        let parameters = operation.parameters.iter().flatten();
        let takes_query = parameters.into_iter().any(is_in_query);
        let documented = Some(Documented { operation, schemas });
        Self { documented, scope, takes_query, ..Self::new(method, path, handler) }
    }

    /// Lets tokens with `scope` alone use the route.
    pub(crate) fn scope(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// Sets what the route's requests count against.
    pub(crate) fn class(self, class: RequestClass) -> Self {
        Self { class, ..self }
    }

    /// Declares that requests have a body.
    pub(crate) fn body(self) -> Self {
        Self { takes_body: true, ..self }
    }

    /// Declares that requests can carry a fence.
    pub(crate) fn fenced(self) -> Self {
        Self { fenced: true, ..self }
    }

    /// Compresses the responses where the client accepts that.
    pub(crate) fn compressed(self) -> Self {
        Self { compressed: true, ..self }
    }

    /// Declares the codes of this route alone.
    pub(crate) fn fails(self, codes: &'static [Code]) -> Self {
        Self { own_codes: codes, ..self }
    }

    /// Returns every code that a request may end with, sorted.
    pub(crate) fn codes(&self) -> Vec<Code> {
        let sets = [
            (true, EVERY_ROUTE),
            (self.scope.is_some(), WITH_SCOPE),
            (self.uses_store, WITH_STORE),
            (self.writes, WITH_WRITE),
            (self.takes_body, WITH_BODY),
            (self.fenced, WITH_FENCE),
            (true, self.own_codes),
        ];
        let mut codes: Vec<_> = sets
            .iter()
            .filter(|(holds, _)| *holds)
            .flat_map(|(_, codes)| *codes)
            .copied()
            .collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

fn is_in_query(parameter: &RefOr<Parameter>) -> bool {
    matches!(parameter, RefOr::T(Parameter { parameter_in: ParameterIn::Query, .. }))
}

fn operations(item: PathItem) -> impl Iterator<Item = (&'static str, Operation)> {
    let PathItem { get, put, post, delete, .. } = item;
    [("GET", get), ("PUT", put), ("POST", post), ("DELETE", delete)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation?)))
}
