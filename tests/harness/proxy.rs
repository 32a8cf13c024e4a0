//! A proxy that misbehaves: it passes bytes on to a server late, in part, or not at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the connections through the proxy behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Passes everything on.
    Good,
    /// Passes everything on, each piece this much later.
    Slow(Duration),
    /// Accepts bytes, and passes nothing on.
    Silent,
    /// Accepts requests, and passes them on when this ends, though the client may have gone.
    Held,
    /// Ends the client's side of each connection, and passes on what was [`Self::Held`] when this ends.
    Left,
    /// Ends every connection, and each new one at once.
    Cut,
    /// Passes requests on, and ends a connection in the middle of the first response.
    CutInAnswer,
    /// Passes requests on, and drops the responses.
    LostAnswers,
}

/// A proxy that runs as long as this exists.
pub(crate) struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    port: Arc<AtomicU16>,
    /// Counts the moves to other ports.
    moves: watch::Sender<u64>,
    /// Counts the pieces of requests that were held up.
    held: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy before a port of this machine.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let line = watch::Sender::new(Line::Good);
        let watched = line.clone();
        let port = Arc::new(AtomicU16::new(port));
        let moves = watch::Sender::new(0);
        let moved = moves.clone();
        let current = Arc::clone(&port);
        let held = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&held);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let moves = moved.subscribe();
                let port = current.load(Ordering::Acquire);
                let held = Arc::clone(&counted);
                tokio::spawn(serve(client, port, watched.subscribe(), moves, held));
            }
        });
        Self { address, line, port, moves, held, task }
    }

    /// Returns the URL of the Redis behind it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Cuts all connections, and leads new ones to another port.
    pub(crate) fn lead_to(&self, port: u16) {
        self.port.store(port, Ordering::Release);
        self.moves.send_modify(|moves| *moves += 1);
    }

    /// Returns how many pieces of requests were held up.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Changes how connections behave, also those that are open.
    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.line.send_replace(Line::Cut);
    }
}

async fn serve(
    client: TcpStream,
    port: u16,
    mut line: watch::Receiver<Line>,
    mut moves: watch::Receiver<u64>,
    held: Arc<AtomicU64>,
) {
    if *line.borrow() == Line::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let requests = pass(from_client, to_server, line.clone(), Some(&held));
    let responses = pass(from_server, to_client, line.clone(), None);
    tokio::select! {
        () = requests => {}
        () = responses => {}
        _ = moves.changed() => {}
        // The test has ended, or wants the connection cut.
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

/// Passes on what is read: requests, of which those that are held up are counted, or responses.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    requests: Option<&AtomicU64>,
) {
    let is_response = requests.is_none();
    let mut buffer = vec![0; 64 << 10];
    // After bytes were left out, nothing may follow on the same connection.
    let mut torn = false;
    loop {
        let left = async {
            drop(line.wait_for(|line| is_response && *line == Line::Left).await);
        };
        let read = tokio::select! {
            read = from.read(&mut buffer) => Some(read),
            () = left => None,
        };
        let Some(read) = read else {
            drop(to);
            return std::future::pending().await;
        };
        let Ok(length @ 1..) = read else { return };
        let mut piece = &buffer[..length];
        if let Some(held) = requests {
            held.fetch_add(u64::from(*line.borrow() == Line::Held), Ordering::AcqRel);
            let goes_on = |line: &Line| !matches!(line, Line::Held | Line::Left);
            if line.wait_for(goes_on).await.is_err() {
                return;
            }
        }
        let now = *line.borrow();
        if torn && now == Line::Good {
            return;
        }
        match now {
            Line::Good => {}
            Line::Slow(delay) => tokio::time::sleep(delay).await,
            Line::Silent => {
                torn = true;
                continue;
            }
            Line::Cut => return,
            Line::LostAnswers if is_response => {
                torn = true;
                continue;
            }
            Line::CutInAnswer if is_response => piece = &piece[..length / 2],
            Line::Held | Line::Left | Line::LostAnswers | Line::CutInAnswer => {}
        }
        if to.write_all(piece).await.is_err() || now == Line::CutInAnswer && is_response {
            return;
        }
    }
}
