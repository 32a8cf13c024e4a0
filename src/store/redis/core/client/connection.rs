//! One connection that all calls share, replaced when it breaks.
//!
//! To one server it is the driver's multiplexed connection, to a cluster the driver's cluster
//! client, which has a connection to each node and follows moved slots. Invariant: a failure tells
//! whether the command was sent, since a command that was not can be sent again whatever it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::SingleNodeRoutingInfo;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    PushInfo, PushKind, RedisError, ServerErrorKind, TlsCertificates, Value,
};

use super::errors;
use crate::model::settings::Secret;
use crate::store::redis::core::settings::RedisSettings;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// For this long after a failed attempt to connect, callers get its error instead of a new attempt.
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// How a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection had been closed before the command was sent; another one can be made.
    Closed,
    /// No connection could be made, so the command was not sent.
    NotSent(RedisError),
    /// The node did not carry the command out: the slot is moving, or has no master yet.
    NotDone(RedisError),
    /// The command was sent, or may have been.
    Sent(RedisError),
    /// The command was sent, or may have been, and no reply came by the deadline.
    NoReply,
}

enum Peer {
    Server { client: Box<Client>, config: AsyncConnectionConfig },
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
enum Connection {
    Server { connection: MultiplexedConnection, closed: Arc<AtomicBool> },
    Cluster(ClusterConnection),
}

/// A connection, and which one of its connector it is.
#[derive(Clone)]
struct Numbered {
    number: u64,
    connection: Connection,
}

/// The current connection, and how to make another one.
pub(super) struct Connector {
    peer: Peer,
    connect_timeout: Duration,
    current: parking_lot::Mutex<Option<Numbered>>,
    /// The number of the newest connection.
    numbers: AtomicU64,
    /// Whether a connection to a cluster is being made beside the current one.
    renewing: AtomicBool,
    /// Locked while connecting; when and how the last attempt failed.
    attempts: tokio::sync::Mutex<Option<(Instant, RedisError)>>,
}

impl Connector {
    /// Reads the settings. Connects when it is first used.
    ///
    /// # Errors
    /// When the settings are invalid.
    pub(super) fn new(settings: &RedisSettings) -> StoreResult<Arc<Self>> {
        Ok(Arc::new(Self {
            peer: peer(settings)?,
            connect_timeout: settings.connect_timeout,
            current: parking_lot::Mutex::default(),
            numbers: AtomicU64::new(0),
            renewing: AtomicBool::new(false),
            attempts: tokio::sync::Mutex::default(),
        }))
    }

    /// Sends a command, and waits for its reply until `deadline`.
    pub(super) async fn send(
        self: &Arc<Self>,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let connecting = tokio::time::timeout_at(deadline.into(), self.connection()).await;
        let connection = connecting.unwrap_or_else(|_| Err(timed_out()));
        let Numbered { number, connection } = connection.map_err(Failure::NotSent)?;
        let replying = tokio::time::timeout_at(deadline.into(), request(connection, command)).await;
        let Ok(reply) = replying else {
            // The reply may still come: a connection in this state is not used again.
            self.leave(number);
            return Err(Failure::NoReply);
        };
        reply.map_err(|error| {
            let Some(error) = error else {
                self.leave(number);
                return Failure::Closed;
            };
            if self.is_cluster() && errors::not_done(&error) {
                return Failure::NotDone(error);
            }
            if errors::leaves(&error) {
                self.leave(number);
            }
            Failure::Sent(error)
        })
    }

    /// Returns how many connections were made.
    pub(super) fn made(&self) -> u64 {
        self.numbers.load(Ordering::Acquire)
    }

    fn is_cluster(&self) -> bool {
        matches!(self.peer, Peer::Cluster(_))
    }

    /// Replaces the connection of that number, unless it was replaced already: the error of an old one says nothing of
    /// the new one. Commands that are under way stay on the old one.
    fn leave(self: &Arc<Self>, number: u64) {
        let mut current = self.current.lock();
        if current.as_ref().is_none_or(|current| current.number != number) {
            return;
        }
        if !self.is_cluster() {
            current.take();
            return;
        }
        // One node hangs or is gone, and the others go on: the old connection serves them until the new one is made.
        if !self.renewing.swap(true, Ordering::AcqRel) {
            let connector = Arc::clone(self);
            tokio::spawn(async move {
                if let Ok(connection) = connector.connect().await {
                    connector.set(connection);
                }
                connector.renewing.store(false, Ordering::Release);
            });
        }
    }

    fn set(&self, connection: Connection) -> Numbered {
        let number = self.numbers.fetch_add(1, Ordering::AcqRel) + 1;
        let numbered = Numbered { number, connection };
        *self.current.lock() = Some(numbered.clone());
        numbered
    }

    async fn connection(&self) -> Result<Numbered, RedisError> {
        if let Some(current) = self.current.lock().clone() {
            return Ok(current);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(current) = self.current.lock().clone() {
            return Ok(current);
        }
        if let Some((_, error)) = attempts.as_ref().filter(|(at, _)| at.elapsed() < RECONNECT_DELAY)
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                *attempts = None;
                Ok(self.set(connection))
            }
            Err(error) => {
                *attempts = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, RedisError> {
        let connecting = async {
            match &self.peer {
                Peer::Server { client, config } => {
                    let closed = Arc::new(AtomicBool::new(false));
                    let noted = Arc::clone(&closed);
                    let note = move |push: PushInfo| {
                        if push.kind == PushKind::Disconnection {
                            noted.store(true, Ordering::Release);
                        }
                        Ok::<(), ()>(())
                    };
                    let config = config.clone().set_push_sender(note);
                    let connection =
                        client.get_multiplexed_async_connection_with_config(&config).await?;
                    Ok(Connection::Server { connection, closed })
                }
                Peer::Cluster(client) => {
                    client.get_async_connection().await.map(Connection::Cluster)
                }
            }
        };
        let in_time = tokio::time::timeout(self.connect_timeout * 2, connecting).await;
        in_time.unwrap_or_else(|_| Err(timed_out()))
    }
}

/// Sends a command on a connection; no error where the connection had been closed before.
async fn request(connection: Connection, command: &Cmd) -> Result<Value, Option<RedisError>> {
    let reply = match connection {
        Connection::Server { closed, .. } if closed.load(Ordering::Acquire) => return Err(None),
        Connection::Server { mut connection, .. } => connection.req_packed_command(command).await,
        Connection::Cluster(mut connection) => {
            let reply = connection.req_packed_command(command).await.and_then(Value::extract_error);
            match reply {
                Err(error) => match asked_node(&error) {
                    Some(node) => ask(&mut connection, command, node).await,
                    None => Err(error),
                },
                reply => reply,
            }
        }
    };
    reply.and_then(Value::extract_error).map_err(Some)
}

/// Returns the node that a slot is moving to, and that has the command's keys already.
fn asked_node(error: &RedisError) -> Option<SingleNodeRoutingInfo> {
    if error.kind() != redis::ErrorKind::Server(ServerErrorKind::Ask) {
        return None;
    }
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    Some(SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port: port.parse().ok()? })
}

/// Sends a command to the node that its slot is moving to. Both commands go together, since ASKING counts for the next
/// command of the connection, which others use as well.
async fn ask(
    connection: &mut ClusterConnection,
    command: &Cmd,
    node: SingleNodeRoutingInfo,
) -> Result<Value, RedisError> {
    let mut commands = redis::pipe();
    commands.cmd("ASKING").add_command(command.clone());
    let replies = connection.route_pipeline(commands, 0, 2, node).await?;
    replies.into_iter().last().ok_or_else(timed_out)
}

fn timed_out() -> RedisError {
    RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))
}

fn unusable(error: RedisError) -> StoreError {
    StoreError::caused_by(ErrorKind::Unavailable, "the settings of redis are not usable", error)
}

fn peer(settings: &RedisSettings) -> StoreResult<Peer> {
    let tcp = TcpSettings::default().set_nodelay(true);
    let mut nodes = nodes(settings).map_err(unusable)?;
    let certificates = certificates(settings)?;
    if settings.is_cluster() {
        let mut builder = ClusterClientBuilder::new(nodes)
            .connection_timeout(settings.connect_timeout)
            .response_timeout(settings.timeout)
            // The driver would also repeat commands that may have been carried out: the caller would
            // find its own lock, and take it for another caller's.
            .retries(0)
            .tcp_settings(tcp);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        if let Some(user) = &settings.username {
            builder = builder.username(user);
        }
        if let Some(password) = &settings.password {
            builder = builder.password(password.expose());
        }
        return Ok(Peer::Cluster(Box::new(builder.build().map_err(unusable)?)));
    }
    let Some(node) = nodes.pop() else {
        return Err(StoreError::new(ErrorKind::Unavailable, "no redis server is configured"));
    };
    let node = node.set_tcp_settings(tcp);
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(node, certificates),
        None => Client::open(node),
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        // The client has its own timeout for each call.
        .set_response_timeout(None);
    Ok(Peer::Server { client: Box::new(client.map_err(unusable)?), config })
}

fn nodes(settings: &RedisSettings) -> Result<Vec<ConnectionInfo>, RedisError> {
    let node = |url: &Secret| {
        let info = url.expose().into_connection_info()?;
        // RESP3 pushes a message when a connection is closed.
        let mut redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = &settings.username {
            redis = redis.set_username(user);
        }
        if let Some(password) = &settings.password {
            redis = redis.set_password(password.expose());
        }
        if settings.database != 0 {
            redis = redis.set_db(settings.database);
        }
        Ok(info.set_redis_settings(redis))
    };
    settings.urls().iter().map(node).collect()
}

fn certificates(settings: &RedisSettings) -> StoreResult<Option<TlsCertificates>> {
    let Some(path) = &settings.ca_file else { return Ok(None) };
    let root_cert = std::fs::read(path).map_err(|error| {
        let detail = format!("{} can't be read", path.display());
        StoreError::caused_by(ErrorKind::Unavailable, detail, error)
    })?;
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) }))
}
