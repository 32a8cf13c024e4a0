//! Builds the floors, owns the tasks, and keeps the order of start and stop.
//!
//! Start: listen (live at once), open the store off the async threads, fill the first page of
//! /metrics, be ready. Stop: take no more connections, finish what runs, end the tasks, bring
//! everything to disk, close. Invariant: a server that can't do its work ends and says why;
//! it never goes on half alive.

mod background;
mod file_limit;
mod logging;
mod memory;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::background::Background;
pub use self::logging::start_tracing;
pub use self::memory::return_memory_promptly;
use self::watch::{watch_clock, while_whole};
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::engine::Engine;
use crate::exposition::{CacheRegistry, OwnMetrics, Pages, Refresher};
use crate::http::{self, Readiness, RouterParts};
use crate::model::time::Timestamp;
use crate::store::{Operation, backends};

/// What a shell shows for a program that SIGINT ended.
const ENDED_AT_ONCE: i32 = 130;

/// How often a store that others share is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// When the server can't start, when a part of it fails for good, or when the last writes can't be
/// brought to disk.
pub fn run_until_signal(config: &Config) -> anyhow::Result<()> {
    file_limit::raise(config.http.limits.connections);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the threads can't be started")?;
    let outcome = runtime.block_on(async {
        let stop = stop_on_signal().context("signals can't be received")?;
        let listener = bind(config.http.server.listen).await?;
        run(config, listener, stop).await
    });
    // Everything is on disk; what still renders a page for nobody need not be waited for.
    runtime.shutdown_background();
    outcome
}

/// Listens on an address.
///
/// # Errors
/// When it is taken, or not one of this machine.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))
}

fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let first = stop.clone();
    tokio::spawn(async move {
        next(&mut signals).await;
        tracing::info!("stopping");
        first.cancel();
        next(&mut signals).await;
        tracing::warn!("ended at once by a second signal");
        std::process::exit(ENDED_AT_ONCE);
    });
    Ok(stop)
}

async fn next((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Serves on `listener` until `stop` is cancelled, and then stops in order.
///
/// # Errors
/// As [`run_until_signal`].
pub async fn run(
    config: &Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let settings = config.http.clone();
    let readiness = Arc::new(Readiness::default());
    let address = listener.local_addr().context("the listener has no address")?;
    let pages = pages()?;
    let router = http::router(RouterParts {
        readiness: Arc::clone(&readiness),
        settings: settings.clone(),
        pages: Arc::clone(&pages),
        stop: stop.clone(),
    });
    let stop_serving = stop.clone();
    let served = CancellationToken::new();
    let serving = served.clone().drop_guard();
    let server = tokio::spawn(async move {
        // Let go also when this panics.
        let _serving = serving;
        http::serve(listener, router, &settings, stop_serving).await;
    });
    tracing::info!(addr = %address, version = env!("CARGO_PKG_VERSION"), "listening");

    let worked = match backends::open(&config.backend, &config.store)
        .await
        .context("the store can't be opened")
    {
        Ok((stores, clock)) => {
            let operation = Arc::clone(&stores.operation);
            let engine = Arc::new(Engine::new(stores, config.engine.clone(), Arc::clone(&clock)));
            let work = work(config, engine, Arc::clone(&clock), pages, &readiness, &stop);
            let worked = while_whole(work, &served, operation.lost(), &stop).await;
            // The requests that still run need the store.
            stop.cancel();
            let served = server.await.context("the listener failed");
            let closed = operation.close().await.context("the store can't be closed");
            served.and(worked).and(closed)
        }
        Err(error) => {
            stop.cancel();
            server.await.context("the listener failed").and(Err(error))
        }
    };
    if worked.is_ok() {
        tracing::info!("stopped");
    }
    worked
}

/// Keeps the server working until it is told to stop.
async fn work(
    config: &Config,
    engine: Arc<Engine>,
    clock: SharedClock,
    pages: Arc<Pages>,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut background = Background::default();
    collect_garbage(&mut background, config, &engine.operation, stop);
    flush(&mut background, config, &engine.operation, stop);
    check_backend(&mut background, &engine.operation, stop);
    clean_up_generations(&mut background, config, &engine, stop);
    watch_clock(&mut background, clock, pages.own(), stop);
    refresh(&mut background, config, &engine, pages, readiness, stop).await;
    readiness.set_engine(engine);
    tracing::info!("ready");
    background.until_stopped(stop).await
}

/// Makes the pages of /metrics, with nothing but the server's own metrics so far.
fn pages() -> anyhow::Result<Arc<Pages>> {
    let own = OwnMetrics::register(&prometheus::Registry::new())
        .context("the server's own metrics can't be made")?;
    // The store's clock is not there yet; this one only tells how old the pages are.
    let clock = Arc::new(SystemClock::start(Timestamp::MIN));
    Ok(Arc::new(Pages::new(Arc::new(own), clock)))
}

/// Fills the pages before the server is ready, so that no scrape of a ready server misses
/// series; then keeps them up to date.
async fn refresh(
    background: &mut Background,
    config: &Config,
    engine: &Engine,
    pages: Arc<Pages>,
    readiness: &Readiness,
    stop: &CancellationToken,
) {
    let (series, operation) = (engine.series.store(), Arc::clone(&engine.operation));
    let caches = Arc::new(CacheRegistry::default());
    caches.register(Arc::clone(engine.cache.totals()) as _);
    let refresher = Refresher::new(series, operation, pages, caches);
    readiness.set_reason("the first page of /metrics is being made");
    // A failure is logged and counted there, and the next tick tries again.
    let _ = stop.run_until_cancelled(refresher.tick()).await;
    let (interval, stop) = (config.exposition.refresh.interval, stop.clone());
    background.run(async move { refresher.run(interval, stop).await });
}

fn collect_garbage(
    background: &mut Background,
    config: &Config,
    operation: &Arc<dyn Operation>,
    stop: &CancellationToken,
) {
    let operation = Arc::clone(operation);
    background.every("gc", config.store.gc.interval, stop.clone(), move || {
        let operation = Arc::clone(&operation);
        async move {
            let removed = operation.collect_garbage().await?;
            tracing::debug!(removed, "removed what had expired");
            Ok(())
        }
    });
}

fn check_backend(
    background: &mut Background,
    operation: &Arc<dyn Operation>,
    stop: &CancellationToken,
) {
    let operation = Arc::clone(operation);
    background.every("watch", WATCH_INTERVAL, stop.clone(), move || {
        let operation = Arc::clone(&operation);
        async move {
            operation.check_backend().await?;
            Ok(())
        }
    });
}

fn flush(
    background: &mut Background,
    config: &Config,
    operation: &Arc<dyn Operation>,
    stop: &CancellationToken,
) {
    let (waited_on, flushed) = (Arc::clone(operation), Arc::clone(operation));
    let wanted = move || {
        let operation = Arc::clone(&waited_on);
        async move { operation.flush_wanted().await }
    };
    background.every_or_when(
        "flush",
        config.store.flush.interval,
        wanted,
        stop.clone(),
        move || {
            let operation = Arc::clone(&flushed);
            async move {
                operation.flush().await?;
                Ok(())
            }
        },
    );
}

/// Forgets the generations that nobody bumps any more, unless one of the two settings is off.
fn clean_up_generations(
    background: &mut Background,
    config: &Config,
    engine: &Arc<Engine>,
    stop: &CancellationToken,
) {
    let settings = &config.engine.generations;
    let (Some(interval), Some(retention)) = (settings.cleanup_interval, settings.retention) else {
        return;
    };
    let engine = Arc::clone(engine);
    background.every("cleanup", interval, stop.clone(), move || {
        let engine = Arc::clone(&engine);
        async move {
            let forgotten = engine.generations.cleanup(retention).await?;
            tracing::debug!(forgotten, "forgot generations that nobody bumps");
            Ok(())
        }
    });
}
