//! Times the parsers of input formats on a million generated points each, one core, and
//! prints nanoseconds per point and megabytes per second. The best of five runs counts.
//! An argument picks the formats whose names contain it.

use std::fmt::Write;
use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use holdall::ingest::{Format, InputLimits};
use holdall::model::series::PointLimits;

const POINTS: usize = 1_000_000;

fn main() -> std::io::Result<()> {
    let limits = InputLimits { points: POINTS, point: PointLimits::default() };
    let canonical = lines(|out, host, value| {
        writeln!(
            out,
            "http_requests_total{{code=\"200\",instance=\"host-{host:06}\",job=\"api\",\
             path=\"/v1/items\"}} {value}"
        )
    });
    let floats = lines(|out, host, value| {
        writeln!(
            out,
            "http_requests_total{{code=\"200\",instance=\"host-{host:06}\",job=\"api\",\
             path=\"/v1/items\"}} {}.{value} 1795186489000",
            host % 1000
        )
    });
    let loose = lines(|out, host, value| {
        writeln!(
            out,
            "http_requests_total{{path=\"/v1/items\", job=\"api\", instance=\"host-{host:06}\", \
             code=\"200\"}} {value}"
        )
    });
    let names = lines(|out, host, value| {
        let name = ["requests_total", "errors_total", "queue_length", "latency_seconds_sum"];
        writeln!(out, "{}{{instance=\"host-{host:06}\"}} {value}", name[host % 4])
    });
    let points = lines(|out, host, value| {
        writeln!(
            out,
            "{{\"name\":\"http_requests_total\",\"labels\":{{\"code\":\"200\",\
             \"instance\":\"host-{host:06}\",\"job\":\"api\",\"path\":\"/v1/items\"}},\
             \"value\":{value}}}"
        )
    });
    let openmetrics = canonical.clone() + "# EOF\n";
    let json = format!("{{\"points\":[{}]}}", points.trim_end().replace('\n', ","));

    let parse = |format: Format, body: &[u8]| {
        format.parse(body, &limits).map(|p| p.parsed.batch.len()).unwrap_or(0)
    };
    let text = |body: &[u8]| parse(Format::Text, body);
    run("text, canonical", &canonical, text)?;
    run("text, canonical, floats and times", &floats, text)?;
    run("text, labels to be sorted", &loose, text)?;
    run("text, names in turn", &names, text)?;
    run("OpenMetrics, canonical", &openmetrics, |body| parse(Format::OpenMetrics, body))?;
    run("JSON", &json, |body| parse(Format::Json, body))?;
    run("NDJSON", &points, |body| parse(Format::Ndjson, body))
}

fn lines(write: impl Fn(&mut String, usize, usize) -> std::fmt::Result) -> String {
    let mut out = String::new();
    for point in 0..POINTS {
        // A String takes all that is written; the value has one to five digits.
        let _ = write(&mut out, point, point * 7919 % 99_991);
    }
    out
}

fn run(what: &str, body: &str, parse: impl Fn(&[u8]) -> usize) -> std::io::Result<()> {
    let picked = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if picked.is_some_and(|part| !what.contains(&part)) {
        return Ok(());
    }
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        let points = parse(black_box(body.as_bytes()));
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(points, POINTS, "{what}");
    }
    let (points, bytes) = (POINTS as f64, body.len() as f64);
    writeln!(
        std::io::stdout(),
        "{what:34} {:6.0} ns/point {:6.0} MB/s {:4.0} bytes/point",
        best * 1e9 / points,
        bytes / best / 1e6,
        bytes / points
    )
}
