//! Tests of admission around handlers that do nothing else.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tower::{Layer, ServiceExt};

use super::*;
use crate::http::settings::for_tests;

fn admission(settings: &HttpSettings) -> Admission {
    let access = Arc::new(Access::new(&settings.access));
    Admission::new(settings, &access, crate::http::tests::pages().own())
}

async fn respond<F>(
    admission: &Admission,
    class: RequestClass,
    handler: impl Fn(Request<Body>) -> F + Clone,
) -> Response
where
    F: Future<Output = Response>,
{
    let inner = tower::service_fn(move |request| {
        let response = handler(request);
        async move { Ok(response.await) }
    });
    let service = admission.layer(None, class, "GET", "/test", true).layer(inner);
    service.oneshot(Request::new(Body::empty())).await.expect("infallible")
}

fn permit_of(request: &Request<Body>) -> RunningPermit {
    request.extensions().get().cloned().expect("the class is `Wait`")
}

async fn endless(_: Request<Body>) -> Response {
    Response::new(Body::from_stream(stream::pending::<Result<Bytes, std::convert::Infallible>>()))
}

#[tokio::test]
async fn a_panic_becomes_a_response_and_returns_its_permit() {
    let admission = admission(&for_tests());
    let all = admission.permits.left();
    for class in [RequestClass::Prompt, RequestClass::Wait] {
        let response = respond(&admission, class, |_| async { panic!("a test") }).await;
        assert_eq!(response.status(), 500);
        assert_eq!(admission.permits.left(), all, "{class:?}");
    }
}

#[tokio::test]
async fn a_request_over_the_time_limit_of_its_class_is_ended() {
    let mut settings = for_tests();
    settings.timeouts.request = Duration::from_millis(10);
    let admission = admission(&settings);
    let all = admission.permits.left();
    let slow = |_| async {
        tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
            .await
            .expect_err("pending");
        Response::new(Body::empty())
    };
    for (class, status) in [
        (RequestClass::Wait, 200),
        (RequestClass::Upload, 200),
        (RequestClass::Prompt, 503),
        (RequestClass::Scrape, 503),
        (RequestClass::Unlimited, 503),
    ] {
        assert_eq!(respond(&admission, class, slow).await.status(), status, "{class:?}");
    }
    assert_eq!(admission.permits.left(), all);
}

#[tokio::test]
async fn endless_responses_keep_their_permit_until_they_end() {
    let admission = admission(&for_tests());
    let all = admission.permits.left();
    let response = respond(&admission, RequestClass::Prompt, endless).await;
    assert_eq!(admission.permits.left(), [all[0] - 1, all[1], all[2]]);
    drop(response);
    assert_eq!(admission.permits.left(), all);
    let _small = respond(&admission, RequestClass::Prompt, async |_| "small".into_response()).await;
    assert_eq!(admission.permits.left(), all);
}

#[tokio::test]
async fn a_waiting_request_counts_as_waiting_and_no_longer_as_running() {
    let admission = admission(&for_tests());
    let all = admission.permits.left();
    let waits = |what| {
        move |request: Request<Body>| {
            permit_of(&request).wait_for(what).expect("there are permits left");
            endless(request)
        }
    };
    let changes = respond(&admission, RequestClass::Wait, waits(WaitFor::Changes)).await;
    assert_eq!(admission.permits.left(), [all[0], all[1] - 1, all[2]]);
    let lease = respond(&admission, RequestClass::Wait, waits(WaitFor::LeaseOrValue)).await;
    assert_eq!(admission.permits.left(), [all[0], all[1] - 1, all[2] - 1]);
    drop((changes, lease));
    assert_eq!(admission.permits.left(), all);
}

#[tokio::test]
async fn a_request_that_may_not_wait_keeps_its_permit_to_run() {
    let mut settings = for_tests();
    settings.limits.waiting_requests = 0;
    let admission = admission(&settings);
    let all = admission.permits.left();
    let refused = respond(&admission, RequestClass::Wait, |request| {
        let refusal = permit_of(&request).wait_for(WaitFor::Changes).expect_err("none is left");
        assert_eq!(refusal.status(), 503);
        endless(request)
    });
    let refused = refused.await;
    assert_eq!(admission.permits.left(), [all[0] - 1, 0, 0]);
    drop(refused);
    assert_eq!(admission.permits.left(), all);
}

#[tokio::test]
async fn a_request_without_a_permit_is_refused_unless_its_class_is_unlimited() {
    let mut settings = for_tests();
    settings.limits.concurrent_requests = 0;
    settings.limits.concurrent_uploads = 0;
    settings.limits.reserved_requests = 0;
    settings.limits.concurrent_scrapes = 0;
    let admission = admission(&settings);
    for (class, status) in [
        (RequestClass::Prompt, 503),
        (RequestClass::Upload, 503),
        (RequestClass::Renewal, 503),
        (RequestClass::Wait, 503),
        (RequestClass::Scrape, 503),
        (RequestClass::Unlimited, 200),
    ] {
        let response = respond(&admission, class, async |_| "served".into_response()).await;
        assert_eq!(response.status(), status, "{class:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_returns_its_permit() {
    let admission = admission(&for_tests());
    let all = admission.permits.left();
    let mut waiting = Box::pin(respond(&admission, RequestClass::Wait, |request| {
        permit_of(&request).wait_for(WaitFor::LeaseOrValue).expect("there are permits left");
        std::future::pending()
    }));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!(admission.permits.left(), [all[0], all[1], all[2] - 1]);
    drop(waiting);
    assert_eq!(admission.permits.left(), all);
}

#[tokio::test]
async fn pushes_and_renewals_find_room_when_nothing_else_may_run() {
    let mut settings = for_tests();
    settings.limits.concurrent_requests = 0;
    settings.limits.reserved_requests = 1;
    settings.limits.concurrent_uploads = 1;
    let admission = admission(&settings);
    let statuses = async |class| respond(&admission, class, endless).await.status().as_u16();
    assert_eq!(statuses(RequestClass::Prompt).await, 503);
    assert_eq!(statuses(RequestClass::Upload).await, 200);
    assert_eq!(statuses(RequestClass::Renewal).await, 200);
    let _renewal = respond(&admission, RequestClass::Renewal, endless).await;
    assert_eq!(statuses(RequestClass::Renewal).await, 503);
}
