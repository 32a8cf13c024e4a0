//! Metrics of this process that come from the operating system.
//!
//! Only Linux has `/proc`; elsewhere there are none.
//! Invariant: `/proc` is read at most once a second. The kernel needs time to count memory and files, and
//! scrapes read on async threads.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// The unit of times in `/proc`: fixed at 100 a second for programs, whatever the kernel uses.
const TICKS_PER_SECOND: f64 = 100.0;

/// How long a reading is used.
const READ_EVERY: Duration = Duration::from_secs(1);

/// CPU time, memory, open files and start time.
#[derive(Clone)]
pub(super) struct ProcessCollector {
    cpu: Counter,
    memory: Gauge,
    files: Gauge,
    start: Gauge,
    /// When it was read last, and whether that succeeded.
    last: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl ProcessCollector {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            cpu: Counter::new("holdall_process_cpu_seconds_total", "CPU time used.")?,
            memory: Gauge::new("holdall_process_resident_memory_bytes", "Resident memory.")?,
            files: Gauge::new("holdall_process_open_fds", "Open file descriptors.")?,
            start: Gauge::new(
                "holdall_process_start_time_seconds",
                "When the process was started, in seconds since 1970.",
            )?,
            last: Arc::default(),
        })
    }

    /// Reads again after a second; returns whether there is anything to show.
    fn refresh(&self) -> bool {
        let mut last = self.last.lock();
        if let Some((at, succeeded)) = *last
            && at.elapsed() < READ_EVERY
        {
            return succeeded;
        }
        let succeeded = self.read().is_some();
        *last = Some((Instant::now(), succeeded));
        succeeded
    }

    fn read(&self) -> Option<()> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name before the last parenthesis may contain anything, also blanks and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let used = (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
        self.cpu.inc_by((used - self.cpu.get()).max(0.0));
        let boot = number_after("/proc/stat", "btime ")?;
        self.start.set(boot + ticks(19)? / TICKS_PER_SECOND);
        self.memory.set(number_after("/proc/self/status", "VmRSS:")? * 1024.0);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 files")]
        self.files.set(open_files()? as f64);
        Some(())
    }
}

/// Returns the number of open files. Linux reports it as the size of the folder since 6.2; before, the
/// size is 0, and the entries are counted.
fn open_files() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        0 => Some((fs::read_dir(FOLDER).ok()?.count() as u64).saturating_sub(1)),
        files => Some(files),
    }
}

fn number_after(path: &str, start: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        [self.cpu.desc(), self.memory.desc(), self.files.desc(), self.start.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if !self.refresh() {
            return Vec::new();
        }
        [self.cpu.collect(), self.memory.collect(), self.files.collect(), self.start.collect()]
            .concat()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_read_at_most_once_a_second() {
        let process = ProcessCollector::new().expect("valid names");
        assert_eq!(process.collect().len(), 4);
        assert!(process.files.get() >= 3.0 && process.memory.get() > 0.0);
        process.files.set(-1.0);
        // In the future: no second passes.
        *process.last.lock() = Some((Instant::now() + 3600 * READ_EVERY, true));
        assert_eq!((process.collect().len(), process.files.get()), (4, -1.0));
        *process.last.lock() = Instant::now().checked_sub(READ_EVERY).map(|at| (at, true));
        process.collect();
        assert!(process.files.get() >= 3.0);
    }
}
