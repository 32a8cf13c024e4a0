//! Starts the log, and writes its lines to standard error on a thread of their own.
//!
//! Not what is logged. Invariant: a thread that logs never waits for standard error, and never fails because of it:
//! whether its reader is slow or gone, or its disk is full. Lines that find no room, or can't be written, are dropped
//! and counted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write, stderr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, registry, reload};

use crate::config::{LogFormat, LogSettings};

/// How many bytes of lines wait to be written, at most.
const QUEUE_BYTES: usize = 256 << 10;

/// How long the end of the process waits for the last lines.
const LAST_LINES_TIME: Duration = Duration::from_secs(1);

/// The log of the process.
#[derive(Clone)]
pub struct Log {
    lines: Lines,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Starts the log, in the configured format.
    ///
    /// # Errors
    /// When the filter is not valid, standard error can't be used, or a log was started already.
    pub fn start(settings: &LogSettings) -> anyhow::Result<Self> {
        // A file of its own: whoever blocks while writing to `stderr()` holds the lock that panics need.
        let target = stderr().as_fd().try_clone_to_owned().context("stderr can't be used")?;
        let lines =
            Lines::start(File::from(target)).context("the log's thread can't be started")?;
        let (filter, handle) = reload::Layer::new(filter(settings)?);
        let layer = fmt::layer().with_writer(lines.clone());
        let layer = match settings.format {
            LogFormat::Text => layer.with_ansi(stderr().is_terminal()).boxed(),
            LogFormat::Json => layer.json().boxed(),
        };
        let started = registry().with(filter).with(layer).try_init();
        started.map_err(|error| anyhow::anyhow!("the log can't be started: {error}"))?;
        // The standard hook writes to standard error itself, and would wait for it.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let cause = panic.payload_as_str().unwrap_or("unknown");
            tracing::error!(place, cause, "a thread panicked");
        }));
        Ok(Self { lines, filter: handle })
    }

    /// Takes over another filter.
    ///
    /// # Errors
    /// When it is not valid.
    pub(super) fn set_filter(&self, settings: &LogSettings) -> anyhow::Result<()> {
        Ok(self.filter.reload(filter(settings)?)?)
    }

    /// Returns how many lines were dropped.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.lines.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, but not for long.
    pub fn finish(&self) {
        self.lines.finish(LAST_LINES_TIME);
    }
}

fn filter(settings: &LogSettings) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&settings.level).context("log.level is not valid")
}

/// The lines that wait to be written.
#[derive(Clone)]
struct Lines(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Notified when a line is added, and when all are written.
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether the thread is writing a line that it has taken.
    writing: bool,
}

impl Lines {
    /// Starts the thread that writes to `target`. It ends with the process.
    fn start(mut target: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self(Arc::default());
        let queue = Arc::clone(&lines.0);
        let write = move || {
            loop {
                let line = queue.next();
                if target.write_all(&line).and_then(|()| target.flush()).is_err() {
                    queue.dropped.fetch_add(1, Ordering::Relaxed);
                }
                queue.written();
            }
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(lines)
    }

    fn add(&self, line: &[u8]) {
        let mut waiting = self.0.waiting.lock();
        if waiting.bytes + line.len() > QUEUE_BYTES {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_vec());
        drop(waiting);
        self.0.changed.notify_all();
    }

    fn finish(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut waiting = self.0.waiting.lock();
        while waiting.writing || !waiting.lines.is_empty() {
            if self.0.changed.wait_until(&mut waiting, deadline).timed_out() {
                return;
            }
        }
    }
}

impl Queue {
    /// Waits for a line, and takes it.
    fn next(&self) -> Vec<u8> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.writing = true;
                return line;
            }
            self.changed.wait(&mut waiting);
        }
    }

    fn written(&self) {
        self.waiting.lock().writing = false;
        self.changed.notify_all();
    }
}

/// A line arrives as one piece.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A target that writes only while it is allowed to.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<Target>, Condvar)>);

    #[derive(Default)]
    struct Target {
        is_open: bool,
        written: Vec<u8>,
    }

    impl Gate {
        fn open(&self) {
            self.0.0.lock().is_open = true;
            self.0.1.notify_all();
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.0.lock();
            while !state.is_open {
                self.0.1.wait(&mut state);
            }
            state.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_find_no_room_are_dropped_and_counted_and_the_others_are_written_in_order() {
        let gate = Gate::default();
        let lines = Lines::start(gate.clone()).expect("a thread");
        let count = QUEUE_BYTES / 1024 + 10;
        for number in 0..count {
            lines.add(format!("{number:01023}\n").as_bytes());
        }
        let dropped = lines.0.dropped.load(Ordering::Relaxed);
        // The thread may have taken one line out of the queue.
        assert!([9, 10].contains(&dropped), "{dropped}");
        lines.finish(Duration::from_millis(1));
        gate.open();
        lines.finish(LONG);
        let written = gate.0.0.lock().written.clone();
        let written = String::from_utf8(written).expect("text");
        let numbers: Vec<usize> =
            written.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(numbers.len() as u64, count as u64 - dropped);
        assert!(numbers.is_sorted());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::start(Full).expect("a thread");
        for _ in 0..3 {
            lines.add(b"line\n");
        }
        lines.finish(LONG);
        assert_eq!(lines.0.dropped.load(Ordering::Relaxed), 3);
    }
}
