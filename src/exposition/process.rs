//! What the operating system says of this process, read when it is asked for.
//!
//! Only Linux has `/proc`; elsewhere nothing is shown.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// The unit of times in `/proc`: fixed at 100 a second for programs, whatever the kernel uses.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time, memory, open files and start time.
#[derive(Clone)]
pub(super) struct ProcessCollector {
    cpu: Counter,
    memory: Gauge,
    files: Gauge,
    start: Gauge,
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
        })
    }

    fn read(&self) -> Option<()> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name before the last parenthesis may hold anything, also blanks.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let used = (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
        self.cpu.inc_by((used - self.cpu.get()).max(0.0));
        let boot = number_after("/proc/stat", "btime ")?;
        self.start.set(boot + ticks(19)? / TICKS_PER_SECOND);
        self.memory.set(number_after("/proc/self/status", "VmRSS:")? * 1024.0);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 files")]
        self.files.set(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64);
        Some(())
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
        if self.read().is_none() {
            return Vec::new();
        }
        [self.cpu.collect(), self.memory.collect(), self.files.collect(), self.start.collect()]
            .concat()
    }
}
