//! Builds the layers, owns the tasks, and keeps the order of start and stop.
//!
//! Start: listen (live at once), open the store, render the first page of /metrics, be ready. Stop: accept no
//! more connections, finish the running requests, end the tasks, flush, close the store. Invariant: a server that
//! can't do its work ends and says why; it never goes on with a part missing.

mod background;
mod declare;
mod file_limit;
mod logging;
mod memory;
mod signals;
mod tasks;
mod watch;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::declare::declare_pipelines;
pub use self::logging::Log;
pub use self::memory::return_memory_promptly;
use self::tasks::Tasks;
use self::watch::{watch_log, while_healthy};
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::engine::Engine;
use crate::exposition::{CacheRegistry, Exports, OwnMetrics, Pages, PipelineCollector, Refresher};
use crate::http::{self, Access, Readiness, RouterParts};
use crate::store::{Stores, backends};

/// Serves until SIGTERM, SIGINT or SIGQUIT; a second one ends the process at once. At SIGHUP, `read` returns the
/// settings as they are now.
///
/// # Errors
/// When the server can't start, when a part of it fails for good, or when the last flush fails.
pub fn run_until_signal(
    config: &Config,
    log: &Log,
    read: impl Fn() -> anyhow::Result<Config> + Clone + Send + 'static,
) -> anyhow::Result<()> {
    file_limit::raise(config.http.limits.connections);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the threads can't be started")?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let access = Arc::new(Access::new(&config.http.access));
        let reload = {
            let (access, log, listen) =
                (Arc::clone(&access), log.clone(), config.http.server.listen);
            move || match reload(listen, &access, &log, &read) {
                Ok(()) => tracing::info!("reloaded the access tokens and the level of the log"),
                Err(error) => {
                    tracing::warn!(cause = %format!("{error:#}"), "nothing was reloaded");
                }
            }
        };
        signals::receive(stop.clone(), log.clone(), reload).context("signals can't be received")?;
        let listener = bind(config.http.server.listen).await?;
        let log = log.clone();
        serve(config, listener, stop, access, move || log.dropped_lines()).await
    });
    // Everything is on disk. A thread that still renders a page has no reader, so it is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Listens on an address.
///
/// # Errors
/// When it is in use, or is not an address of this machine.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))
}

/// Takes over what can be changed while the server runs: the access tokens and the level of the log.
fn reload(
    listen: SocketAddr,
    access: &Access,
    log: &Log,
    read: impl FnOnce() -> anyhow::Result<Config>,
) -> anyhow::Result<()> {
    let config = read()?;
    let settings = &config.http.access;
    // The settings were checked for the address that they name, which may be another one by now.
    anyhow::ensure!(
        settings.may_serve(listen),
        "there are no access.tokens, and this server listens on {listen}"
    );
    log.set_filter(&config.log)?;
    access.reload_tokens(settings);
    Ok(())
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
    let access = Arc::new(Access::new(&config.http.access));
    serve(config, listener, stop, access, || 0).await
}

/// Does that with tokens that may be replaced, and with a log that may drop lines.
async fn serve(
    config: &Config,
    listener: TcpListener,
    stop: CancellationToken,
    access: Arc<Access>,
    dropped_lines: impl Fn() -> u64 + Send + 'static,
) -> anyhow::Result<()> {
    let settings = config.http.clone();
    let readiness = Arc::new(Readiness::default());
    let address = listener.local_addr().context("the listener has no address")?;
    let pages = pages()?;
    let router = http::router(RouterParts {
        readiness: Arc::clone(&readiness),
        access,
        settings: settings.clone(),
        pages: Arc::clone(&pages),
        stop: stop.clone(),
    });
    let stop_serving = stop.clone();
    let served = CancellationToken::new();
    let serving = served.clone().drop_guard();
    let server = tokio::spawn(async move {
        // Dropped also by a panic, so that `while_healthy` always sees the end of the listener.
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
            let worked = async {
                let engine = engine(config, stores, &clock, &pages)?;
                let declared = stop.run_until_cancelled(declare_pipelines(&engine)).await;
                let Some(declared) = declared else { return Ok(()) };
                declared.context("the pipelines can't be used as they are declared")?;
                readiness.set_engine(Arc::clone(&engine));
                let work = work(config, engine, Arc::clone(&clock), pages, &stop, dropped_lines);
                while_healthy(work, &served, operation.lost(), &stop).await
            };
            let worked = worked.await;
            // The store closes last: the requests that still run need it, and `server` ends after them.
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

/// Builds the rules over the store, with metrics for what they do.
fn engine(
    config: &Config,
    stores: Stores,
    clock: &SharedClock,
    pages: &Pages,
) -> anyhow::Result<Arc<Engine>> {
    let own = pages.own();
    let mut engine = Engine::new(stores, config.engine.clone(), Arc::clone(clock));
    engine.aggregates.record_in(&own.aggregate_operations);
    let engine = Arc::new(engine);
    PipelineCollector::new(Arc::clone(&engine))
        .and_then(|updates| own.registry().register(Box::new(updates)))
        .context("the metrics of aggregates can't be registered")?;
    Ok(engine)
}

/// Keeps the server working until it is told to stop.
async fn work(
    config: &Config,
    engine: Arc<Engine>,
    clock: SharedClock,
    pages: Arc<Pages>,
    stop: &CancellationToken,
    dropped_lines: impl Fn() -> u64 + Send + 'static,
) -> anyhow::Result<()> {
    let own = pages.own();
    let mut tasks = Tasks::new(Arc::clone(&clock), Arc::clone(own));
    for task in background::all(config, &engine, &clock, own) {
        tasks.repeat(task, stop.clone());
    }
    tasks.repeat(watch_log(dropped_lines, own), stop.clone());
    refresh(&mut tasks, config, &engine, &pages, stop);
    let mut stopped = pin!(tasks.until_stopped(stop));
    tokio::select! {
        ended = &mut stopped => return ended,
        () = pages.until_complete() => tracing::info!("ready"),
    }
    stopped.await
}

/// Makes the pages of /metrics, which contain only the server's own metrics until the first refresh.
fn pages() -> anyhow::Result<Arc<Pages>> {
    let own = OwnMetrics::register(&prometheus::Registry::new())
        .context("the server's own metrics can't be registered")?;
    // The store, and with it its clock, is not open yet; this one only measures the age of the pages.
    let clock = Arc::new(SystemClock::resume(None));
    Ok(Arc::new(Pages::new(Arc::new(own), clock)))
}

/// Keeps the pages up to date. The server is ready when the first is complete, so that no scrape of a ready server
/// misses series.
fn refresh(
    tasks: &mut Tasks,
    config: &Config,
    engine: &Engine,
    pages: &Arc<Pages>,
    stop: &CancellationToken,
) {
    let (series, operation) = (engine.series.store(), Arc::clone(&engine.operation));
    let caches = Arc::new(CacheRegistry::default());
    caches.register(Arc::clone(engine.cache.totals()) as _);
    let exports = Exports::of(&engine.aggregates);
    let refresher = Refresher::new(series, operation, Arc::clone(pages), caches, exports);
    let (interval, stop) = (config.exposition.refresh.interval, stop.clone());
    tasks.run(async move { refresher.run(interval, stop).await });
}
