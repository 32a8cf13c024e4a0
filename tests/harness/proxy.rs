//! A line that misbehaves: passes bytes on to a server, late, in part, or not at all.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the line behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Passes everything on.
    Good,
    /// Passes everything on, each piece this much later.
    Slow(Duration),
    /// Takes what it is given, and passes nothing on.
    Silent,
    /// Ends every connection, and each new one at once.
    Cut,
    /// Passes requests on, and ends a connection in the middle of the first answer.
    CutInAnswer,
    /// Passes requests on, and drops the answers.
    LostAnswers,
}

/// The line. It lives as long as this.
pub(crate) struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Begins to pass on to a port of this machine.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let line = watch::Sender::new(Line::Good);
        let watched = line.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                tokio::spawn(serve(client, port, watched.subscribe()));
            }
        });
        Self { address, line, task }
    }

    /// Returns the URL of the Redis behind it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Changes how the line behaves, also for the connections that stand.
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

async fn serve(client: TcpStream, port: u16, mut line: watch::Receiver<Line>) {
    if *line.borrow() == Line::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asked = pass(from_client, to_server, line.clone(), false);
    let answered = pass(from_server, to_client, line.clone(), true);
    tokio::select! {
        () = asked => {}
        () = answered => {}
        // Whoever set it has ended, or wants the line cut.
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    line: watch::Receiver<Line>,
    answers: bool,
) {
    let mut buffer = vec![0; 64 << 10];
    // Behind something that was left out nothing can follow on the same connection.
    let mut torn = false;
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let mut piece = &buffer[..length];
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
            Line::LostAnswers if answers => {
                torn = true;
                continue;
            }
            Line::CutInAnswer if answers => piece = &piece[..length / 2],
            Line::LostAnswers | Line::CutInAnswer => {}
        }
        if to.write_all(piece).await.is_err() || now == Line::CutInAnswer && answers {
            return;
        }
    }
}
