//! The command line: serve, openapi, routes, check-config, healthcheck.
//!
//! Not the work itself. Invariant: the exit code says what happened: 0 success, 1 failure, 2 a bad command
//! line or configuration.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};

use crate::app::{self, Log};
use crate::config::{self, Config, Loaded, SettingErrors};
use crate::http;

/// The exit code of a bad command line or configuration; clap's own.
const USAGE_ERROR: u8 = 2;
const CONFIG_VARIABLE: &str = "HOLDALL_CONFIG";
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// More than any response of a health endpoint.
const HEALTHCHECK_RESPONSE_BYTES: u64 = 64 * 1024;

/// One server for the state that stateless workers share.
#[derive(Debug, Clone, Parser)]
#[command(name = "holdall", version)]
pub struct Cli {
    /// The file with the settings; HOLDALL_CONFIG in the environment does the same.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Serves until SIGTERM, SIGINT or SIGQUIT. This is the default command.
    Serve,
    /// Prints the OpenAPI document.
    Openapi {
        /// The version of OpenAPI.
        #[arg(long, value_enum, default_value = "3.1")]
        version: OpenapiVersion,
    },
    /// Prints every route, with its scope and its problem codes.
    Routes,
    /// Prints the effective settings without secrets, or every error in them.
    CheckConfig,
    /// Asks the configured server whether it is ready.
    Healthcheck {
        /// The http URL to ask instead.
        #[arg(long)]
        url: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OpenapiVersion {
    #[value(name = "3.1")]
    V31,
    #[value(name = "3.0")]
    V30,
}

/// Runs the command.
pub fn run(cli: &Cli) -> ExitCode {
    let outcome = match cli.command.as_ref().unwrap_or(&Command::Serve) {
        Command::Serve => match start(cli) {
            Ok((config, log)) => return serve(cli, &config, &log),
            Err(error) => Err(error),
        },
        Command::Openapi { version } => print(&openapi(*version)),
        Command::Routes => print(&http::route_table()),
        Command::CheckConfig => load(cli).and_then(|loaded| print(&loaded.show())),
        Command::Healthcheck { url } => healthcheck(cli, url.as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not to the log, which may not have been started. A failure to print has nowhere to go.
            let _ = writeln!(std::io::stderr(), "holdall: {error:#}");
            ExitCode::from(if error.is::<SettingErrors>() { USAGE_ERROR } else { 1 })
        }
    }
}

fn load(cli: &Cli) -> anyhow::Result<Loaded> {
    let file = cli.config.clone().or_else(|| {
        std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    Ok(config::load(file.as_deref(), std::env::vars_os())?)
}

fn start(cli: &Cli) -> anyhow::Result<(Config, Log)> {
    app::return_memory_promptly();
    let config = load(cli)?.config;
    let log = Log::start(&config.log)?;
    Ok((config, log))
}

/// Serves. From here on, all messages go to the log.
fn serve(cli: &Cli, config: &Config, log: &Log) -> ExitCode {
    let cli = cli.clone();
    let read = move || load(&cli).map(|loaded| loaded.config);
    let code = match app::run_until_signal(config, log, read) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(cause = %format!("{error:#}"), "the server failed");
            ExitCode::FAILURE
        }
    };
    log.finish();
    code
}

fn openapi(version: OpenapiVersion) -> String {
    match version {
        OpenapiVersion::V31 => http::openapi_3_1(),
        OpenapiVersion::V30 => http::openapi_3_0(),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("can't print")
}

fn healthcheck(cli: &Cli, url: Option<&str>) -> anyhow::Result<()> {
    let (address, host, path) = match url {
        Some(url) => parse_url(url)?,
        None => {
            let listen = load(cli)?.config.http.server.listen;
            (reachable(listen), listen.to_string(), "/readyz".to_owned())
        }
    };
    let status =
        ask(address, &host, &path).with_context(|| format!("{address} does not respond"))?;
    if status == 200 { Ok(()) } else { bail!("{address} responds with {status}") }
}

/// Returns where a server that listens on `listen` can be reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn parse_url(url: &str) -> anyhow::Result<(SocketAddr, String, String)> {
    let rest = url.strip_prefix("http://").context("only http:// URLs are supported")?;
    let (host, path) = match rest.find('/') {
        Some(slash) => (&rest[..slash], &rest[slash..]),
        None => (rest, "/readyz"),
    };
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = with_port
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .with_context(|| format!("no address of {host:?} is known"))?;
    Ok((address, host.to_owned(), path.to_owned()))
}

/// Sends one GET and returns the status.
fn ask(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_TIMEOUT)?;
    stream.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    stream.set_write_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(HEALTHCHECK_RESPONSE_BYTES).read_to_end(&mut response)?;
    let head = response.split(|&b| b == b'\r').next().unwrap_or_default();
    let head = std::str::from_utf8(head)?;
    head.strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .context("the response is not HTTP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_host_a_port_and_a_path() {
        let parsed = parse_url("http://127.0.0.1:8720/livez").expect("valid");
        assert_eq!(parsed.0.port(), 8720);
        assert_eq!(parsed.2, "/livez");
        assert_eq!(parse_url("http://127.0.0.1").expect("valid").2, "/readyz");
        assert!(parse_url("https://127.0.0.1").is_err());
    }

    #[test]
    fn a_server_on_every_address_is_asked_on_loopback() {
        let any: SocketAddr = "0.0.0.0:1".parse().expect("valid");
        assert_eq!(reachable(any).to_string(), "127.0.0.1:1");
        let any: SocketAddr = "[::]:1".parse().expect("valid");
        assert_eq!(reachable(any).to_string(), "[::1]:1");
    }
}
